"""VGG16 and FCNs with random weights, as plain torch, and the files that frameworks would write."""

import numpy as np
import torch
import torch.nn.functional as F
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from torch import nn

BLOCKS = ((1, 2, 64), (2, 2, 128), (3, 3, 256), (4, 3, 512), (5, 3, 512))
NAMES = [f"conv{b}_{i}" for b, n, _ in BLOCKS for i in range(1, n + 1)]
BGR_MEAN = np.array([103.939, 116.779, 123.68])  # as the Keras and TensorFlow nets were trained
CAFFE_BGR_MEAN = np.array([104.00698793, 116.66876762, 122.67891434])


def random_vgg(seed=0, gain=1.0):
    """Return weights of the 13 convolutions, (O, I, 3, 3), that keep maps at their size (He)."""
    torch.manual_seed(seed)
    weights, inputs = {}, 3
    for block, count, outputs in BLOCKS:
        for i in range(1, count + 1):
            deviation = gain * (2 / (9 * inputs)) ** 0.5
            weights[f"conv{block}_{i}.weight"] = torch.randn(outputs, inputs, 3, 3) * deviation
            weights[f"conv{block}_{i}.bias"] = 0.1 * torch.randn(outputs)
            inputs = outputs
    return weights


def hollow(*shape, dtype=torch.float32):
    """Return zeros that take no room, in a `.pth` file neither."""
    return torch.zeros((), dtype=dtype).expand(shape)


def hollow_vgg(dtype=torch.float32):
    """Return zeros of the shapes of `random_vgg`."""
    widths = [width for _, count, width in BLOCKS for _ in range(count)]
    weights = {}
    for name, outputs, inputs in zip(NAMES, widths, [3, *widths], strict=False):
        weights[f"{name}.weight"] = hollow(outputs, inputs, 3, 3, dtype=dtype)
        weights[f"{name}.bias"] = hollow(outputs, dtype=dtype)
    return weights


def random_head(classes, skips, head=16, seed=1):
    """Return weights of the rest of an FCN with small fc6 and fc7, as Caffe's nets have them."""
    torch.manual_seed(seed)
    shapes = {
        "fc6": (head, 512, 7, 7),
        "fc7": (head, head, 1, 1),
        "score_fr": (classes, head, 1, 1),
    }
    for pool, width in list({"score_pool4": 512, "score_pool3": 256}.items())[:skips]:
        shapes[pool] = (classes, width, 1, 1)
    weights = {}
    for name, shape in shapes.items():
        fan_in = shape[1] * shape[2] * shape[3]
        weights[f"{name}.weight"] = torch.randn(shape) * (2 / fan_in) ** 0.5
        weights[f"{name}.bias"] = torch.randn(shape[0])
    sides = {0: {"upscore": 64}, 1: {"upscore2": 4, "upscore16": 32}}
    sides[2] = {"upscore2": 4, "upscore_pool4": 4, "upscore8": 16}
    for name, side in sides[skips].items():
        weights[f"{name}.weight"] = dense_bilinear(classes, side)
    return weights


def dense_bilinear(classes, side):
    """Return (classes, classes, side, side), by the formula of the FCN authors' surgery.py."""
    factor = (side + 1) // 2
    centre = factor - 1 if side % 2 else factor - 0.5
    rows, columns = np.ogrid[:side, :side]
    kernel = (1 - abs(rows - centre) / factor) * (1 - abs(columns - centre) / factor)
    weight = np.zeros((classes, classes, side, side), np.float32)
    weight[range(classes), range(classes)] = kernel
    return torch.from_numpy(weight)


def pools(weights, x, convolve=F.conv2d, pad=1):
    """Return the five pooled maps of VGG16 for (1, 3, H, W), computed layer by layer."""
    found = []
    for block, count, _ in BLOCKS:
        for i in range(1, count + 1):
            name = f"conv{block}_{i}"
            padding = pad if name == "conv1_1" else 1
            x = convolve(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding)
            x = x.relu()
        x = F.max_pool2d(x, 2, ceil_mode=True)
        found.append(x)
    return found


def fcn(weights, x, pad=1, scales=(1, 1)):
    """Return the scores of an FCN with dense upsampling; `pad` 100 crops as the Caffe nets do."""
    found, size = pools(weights, x, pad=pad), x.shape[-2:]
    crops = iter({0: [19], 1: [5, 27], 2: [5, 9, 31]}[skips_of(weights)] if pad == 100 else [])

    def layer(x, name, **more):
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **more)

    def up(x, name, size, *, last=False):
        kernel = weights[f"{name}.weight"]
        stride = kernel.shape[-1] // 2
        if pad == 100:
            x = F.conv_transpose2d(x, kernel, stride=stride)
            offset = next(crops) if last else 0
            return x[..., offset:, offset:][..., : size[0], : size[1]] if last else x
        return F.conv_transpose2d(x, kernel, stride=stride, padding=stride // 2)

    x = layer(found[4], "fc6", padding=0 if pad == 100 else 3).relu()
    x = layer(layer(x, "fc7").relu(), "score_fr")
    names = [n.removesuffix(".weight") for n in weights if n.startswith("upscore")]
    for name, pool, score, scale in zip(
        names[:-1], found[3:1:-1], ("score_pool4", "score_pool3"), scales, strict=False
    ):
        x = up(x, name, None)
        finer = layer(scale * pool, score)
        if pad == 100:
            offset = next(crops)
            finer = finer[..., offset:, offset:][..., : x.shape[2], : x.shape[3]]
        x = x + finer
    return up(x, names[-1], size, last=True)


def skips_of(weights):
    return sum(f"score_pool{i}.weight" in weights for i in (4, 3))


def bgr(weights):
    """Return weights whose first layer takes blue, green, red, as if trained so."""
    return {**weights, "conv1_1.weight": weights["conv1_1.weight"][:, [2, 1, 0]]}


def sequential(weights):
    """Return the convolutions as torchvision has them: `features` of an nn.Sequential."""
    layers, inputs = [], 3
    for _, count, outputs in BLOCKS:
        for _ in range(count):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    features = nn.Sequential(*layers)
    convolutions = [layer for layer in features if isinstance(layer, nn.Conv2d)]
    for name, layer in zip(NAMES, convolutions, strict=True):
        layer.weight.data, layer.bias.data = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return features


# --- caffe.proto, as far as needed, with floats as floats --------------------------------------


def caffe_messages():
    """Return the class of Caffe's NetParameter, declared anew after caffe.proto."""
    file = descriptor_pb2.FileDescriptorProto(name="test.proto", package="test", syntax="proto2")
    types = {"int32": 5, "int64": 3, "string": 9, "float": 2}

    def message(name, *fields):
        declared = file.message_type.add(name=name)
        for field, number, kind, label in fields:
            added = declared.field.add(name=field, number=number, label=label)
            if kind in types:
                added.type = types[kind]
                if label == 3 and kind != "string":
                    added.options.packed = True
            else:
                added.type, added.type_name = 11, f".test.{kind}"

    message("BlobShape", ("dim", 1, "int64", 3))
    message(
        "BlobProto",
        ("num", 1, "int32", 1),
        ("channels", 2, "int32", 1),
        ("height", 3, "int32", 1),
        ("width", 4, "int32", 1),
        ("data", 5, "float", 3),
        ("shape", 7, "BlobShape", 1),
    )
    message(
        "LayerParameter",
        ("name", 1, "string", 1),
        ("type", 2, "string", 1),
        ("bottom", 3, "string", 3),
        ("top", 4, "string", 3),
        ("blobs", 7, "BlobProto", 3),
    )
    message(
        "V1LayerParameter",
        ("bottom", 2, "string", 3),
        ("top", 3, "string", 3),
        ("name", 4, "string", 1),
        ("type", 5, "int32", 1),
        ("blobs", 6, "BlobProto", 3),
    )
    message(
        "NetParameter",
        ("name", 1, "string", 1),
        ("layers", 2, "V1LayerParameter", 3),
        ("layer", 100, "LayerParameter", 3),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.NetParameter"))


def save_caffemodel(path, layers, *, is_old=False):
    """Write layers, name -> blobs, as Caffe does now, or as before 2014."""
    net = caffe_messages()(name="vgg")
    bottom = "data"
    for name, blobs in layers.items():
        added = (net.layers if is_old else net.layer).add(name=name, bottom=[bottom], top=[name])
        added.type = 4 if is_old else "Convolution"
        bottom = name
        for values in blobs:
            blob = added.blobs.add()
            if is_old:
                shape = (1,) * (4 - values.ndim) + tuple(values.shape)
                blob.num, blob.channels, blob.height, blob.width = shape
            else:
                blob.shape.dim.extend(values.shape)
            blob.data.extend(values.flatten().tolist())
    path.write_bytes(net.SerializeToString())
