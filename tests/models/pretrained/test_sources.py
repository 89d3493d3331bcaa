"""Each file gives the maps that its own framework would, of the same picture.

The file is written as that framework writes it; the maps are computed with that framework, or
layer by layer by its own definition, fed as it feeds its nets.
"""

import pickle
import subprocess
import sys

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.signal
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from vgg import (
    BGR_MEAN,
    CAFFE_BGR_MEAN,
    NAMES,
    pools,
    save_caffemodel,
    sequential,
)

from fcntile.errors import ModelError
from fcntile.models.pretrained import published, read_pretrained
from fcntile.models.pretrained.layouts import LAYOUTS, TENSORFLOW, THEANO, to_kernel

CLASSIC = (1, 3, 6, 8, 11, 13, 15, 18, 20, 22, 25, 27, 29)


def bgr_input(image, mean):
    """Return (1, 3, H, W): blue, green, red minus their mean."""
    return torch.from_numpy((image[..., ::-1] - mean).astype("f4")).permute(2, 0, 1)[None]


# --- Keras ------------------------------------------------------------------------------------

KERAS = """
import os, sys
os.environ["KERAS_BACKEND"] = "torch"
import keras, numpy as np
rng, folder = np.random.default_rng(0), sys.argv[1]
image = np.load(f"{folder}/image.npy").astype("f4")
model = keras.applications.VGG16(weights=None, include_top=False, input_shape=image.shape)
for layer in model.layers:
    if layer.weights:
        shape = layer.kernel.shape
        kernel = rng.normal(0, (2 / np.prod(shape[:3])) ** 0.5, shape)
        layer.set_weights([kernel, rng.normal(0, 0.1, shape[3])])
model.save(f"{folder}/whole.h5")
model.save_weights(f"{folder}/three.weights.h5")
x = keras.applications.vgg16.preprocess_input(image[None].copy())
maps = keras.Model(model.input, [model.get_layer(f"block{i}_pool").output for i in range(1, 6)])
for i, m in enumerate(maps.predict(x, verbose=0)):
    np.save(f"{folder}/pool{i + 1}.npy", m)
"""


@pytest.fixture(scope="module")
def keras_folder(tmp_path_factory, image):
    """Let Keras make a VGG16 with random weights, save it, and compute its maps of the image."""
    folder = tmp_path_factory.mktemp("keras")
    np.save(folder / "image.npy", image)
    subprocess.run([sys.executable, "-c", KERAS, folder], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("name", ["whole.h5", "three.weights.h5"])
def test_a_file_of_keras_gives_the_maps_of_keras(name, keras_folder, our_pools, assert_same_maps):
    given = read_pretrained(keras_folder / name)
    theirs = [
        torch.from_numpy(np.load(keras_folder / f"pool{i}.npy")).permute(0, 3, 1, 2)
        for i in range(1, 6)
    ]
    assert given.source == "VGG16 of Keras"
    assert sum(w.numel() for w in given.weights.values()) == 14_714_688
    assert_same_maps(our_pools(given), theirs)


def true_convolution(x, weight, bias, padding):
    """Convolve in the strict sense, as Theano did: the kernel is turned by half."""
    return F.conv2d(x, weight.rot90(2, (2, 3)), bias, padding=padding)


def test_the_reference_convolution_is_scipy_s():
    x, kernel = torch.rand(1, 1, 5, 6), torch.rand(1, 1, 3, 3)
    theirs = scipy.signal.convolve2d(x[0, 0], kernel[0, 0], mode="same")
    ours = true_convolution(x, kernel, None, 1)[0, 0]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def save_classic(path, weights):
    with h5py.File(path, "w") as file:
        file.attrs["nb_layers"] = 37
        for i in range(37):
            group = file.create_group(f"layer_{i}")
            group.attrs["nb_params"] = 2 if i in CLASSIC else 0
        for i, name in zip(CLASSIC, NAMES, strict=True):
            file[f"layer_{i}/param_0"] = weights[f"{name}.weight"].numpy()
            file[f"layer_{i}/param_1"] = weights[f"{name}.bias"].numpy()


def save_theano(path, weights):
    """Write the layout of Keras 1 with Theano's kernels."""
    layers = [f"block{n[4]}_conv{n[6]}" for n in NAMES]
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer in ["input_1", *layers]]
        file.create_group("input_1").attrs["weight_names"] = np.array([], "S1")
        for layer, name in zip(layers, NAMES, strict=True):
            group = file.create_group(layer)
            kinds = {"weight": f"{layer}_W_1:0", "bias": f"{layer}_b_1:0"}
            group.attrs["weight_names"] = [n.encode() for n in kinds.values()]
            for kind, full in kinds.items():
                group[full] = weights[f"{name}.{kind}"].numpy()


@pytest.mark.parametrize("save", [save_classic, save_theano])
def test_theano_s_kernels_are_turned(save, weights, image, our_pools, assert_same_maps, tmp_path):
    save(tmp_path / "vgg.h5", weights)
    ours = our_pools(read_pretrained(tmp_path / "vgg.h5"))
    x = bgr_input(image, BGR_MEAN)
    assert_same_maps(ours, pools(weights, x, true_convolution))
    correlated = pools(weights, x)  # what a loader without the turn would give
    assert all(
        (a - b).abs().max() > 0.1 * b.abs().max() for a, b in zip(ours, correlated, strict=True)
    )


# --- torch ------------------------------------------------------------------------------------


def vision_input(image):
    x = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((x - mean[:, None, None]) / std[:, None, None])[None]


def save_vision(path, weights, *, is_legacy=False, **more):
    state = {f"features.{k}": v for k, v in sequential(weights).state_dict().items()}
    torch.save({**state, **more}, path, _use_new_zipfile_serialization=not is_legacy)


@pytest.mark.parametrize("is_legacy", [False, True])
def test_a_file_of_torchvision_gives_the_maps_of_torch(
    is_legacy, weights, image, our_pools, assert_same_maps, tmp_path
):
    save_vision(tmp_path / "vgg16.pth", weights, is_legacy=is_legacy)
    given = read_pretrained(tmp_path / "vgg16.pth")
    features, x, theirs = sequential(weights), vision_input(image), []
    with torch.no_grad():
        for layer in features:
            x = layer(x)
            if isinstance(layer, torch.nn.MaxPool2d):
                theirs.append(x)
    assert (given.source, given.spread) == ("VGG16 of torchvision", 1)
    assert_same_maps(our_pools(given), theirs)


def test_wrapped_state_dicts_and_safetensors_are_the_same(weights, tmp_path):
    save_vision(tmp_path / "plain.pth", weights)
    plain = torch.load(tmp_path / "plain.pth", weights_only=True)
    wrapped = {f"module.{name}": value for name, value in plain.items()}
    torch.save({"epoch": 3, "state_dict": wrapped}, tmp_path / "wrapped.pth")
    save_file(plain, tmp_path / "plain.safetensors")
    expected = read_pretrained(tmp_path / "plain.pth")
    for name in ("wrapped.pth", "plain.safetensors"):
        found = read_pretrained(tmp_path / name)
        assert (found.source, found.bands) == (expected.source, expected.bands)
        assert found.weights.keys() == expected.weights.keys()
        assert all(torch.equal(found.weights[n], w) for n, w in expected.weights.items())


def test_a_classifier_of_nan_means_the_features_of_ssd(
    weights, image, our_pools, assert_same_maps, tmp_path
):
    nan = {"classifier.0.weight": torch.full((8, 25088), torch.nan)}
    save_vision(tmp_path / "vgg16.pth", weights, **nan)
    given = read_pretrained(tmp_path / "vgg16.pth")
    assert "conv6.weight" not in given.weights
    x = torch.from_numpy(image).permute(2, 0, 1) / 255 - torch.tensor(
        [0.48235, 0.45882, 0.40784]
    ).reshape(3, 1, 1)
    assert_same_maps(our_pools(given), pools(weights, 255 * x[None].float()))


@pytest.mark.parametrize("order", ["BGR", "RGB"])
def test_the_authors_vgg16_is_known_under_the_names_of_torchvision(
    order, weights, image, our_pools, assert_same_maps, tmp_path
):
    weights = {name: weight.clone() for name, weight in weights.items()}
    weights["conv1_1.bias"][:6] = torch.tensor(published.AUTHORS_BIAS)
    weights["conv1_1.weight"][:6, order.index("B"), 0, 0] = torch.tensor(published.AUTHORS_BLUE)
    save_vision(tmp_path / "vgg16.pth", weights)
    given = read_pretrained(tmp_path / "vgg16.pth")
    assert given.source == "VGG16 of torch, from Caffe"
    x = bgr_input(image, CAFFE_BGR_MEAN)
    theirs = pools(weights, x if order == "BGR" else x.flip(1))
    assert_same_maps(our_pools(given), theirs)


def test_a_spoilt_copy_of_the_authors_vgg16_is_refused(weights, tmp_path):
    weights = {name: weight.clone() for name, weight in weights.items()}
    weights["conv1_1.bias"][:6] = torch.tensor(published.AUTHORS_BIAS)
    weights["conv1_1.weight"][:6, 0, 2, 2] = torch.tensor(published.AUTHORS_BLUE)  # turned
    save_vision(tmp_path / "vgg16.pth", weights)
    with pytest.raises(ModelError, match="turned or mixed up"):
        read_pretrained(tmp_path / "vgg16.pth")
    save_classic(tmp_path / "vgg16.h5", weights)  # which a file for Theano has to be
    assert read_pretrained(tmp_path / "vgg16.h5").source == "VGG16 of Keras, classic"


# --- numpy, Caffe -----------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_dictionary_of_numpy_gives_the_maps_of_tensorflow(
    protocol, weights, image, our_pools, assert_same_maps, tmp_path
):
    layers = {
        name: [
            weights[f"{name}.weight"].permute(2, 3, 1, 0).numpy(),
            weights[f"{name}.bias"].numpy(),
        ]
        for name in NAMES
    }
    path = tmp_path / "vgg16.npy"
    if protocol == 4:
        np.save(path, layers, allow_pickle=True)
    else:  # as Python 2 did
        header = {"descr": "|O", "fortran_order": False, "shape": ()}
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            pickle.dump(np.array(layers, object), file, protocol=2)
    given = read_pretrained(path)
    assert given.source == "VGG16 of tensorflow-vgg"
    assert_same_maps(our_pools(given), pools(weights, bgr_input(image, BGR_MEAN)))


PROTOTXT = 'name: "vgg"\ninput: "data"\ninput_dim: 1\ninput_dim: 3\ninput_dim: 64\ninput_dim: 96\n'


def prototxt():
    text, bottom = PROTOTXT, "data"
    for name in NAMES:
        text += f"""
layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}"
  convolution_param {{ num_output: {64 * 2 ** min(3, int(name[4]) - 1)} kernel_size: 3 pad: 1 }} }}
layer {{ name: "relu{name[4:]}" type: "ReLU" bottom: "{name}" top: "{name}" }}"""
        bottom = name
        if name in ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"):
            bottom = f"pool{name[4]}"
            text += f"""
layer {{ name: "{bottom}" type: "Pooling" bottom: "{name}" top: "{bottom}"
  pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }} }}"""
    return text.encode()


@pytest.mark.parametrize("is_old", [False, True])
def test_a_caffemodel_gives_the_maps_of_opencv(
    is_old, weights, image, our_pools, assert_same_maps, tmp_path
):
    path = tmp_path / "vgg.caffemodel"
    layers = {n: [weights[f"{n}.weight"], weights[f"{n}.bias"]] for n in NAMES}
    layers["fc6"] = [torch.rand(8, 25088), torch.rand(8)]
    save_caffemodel(path, layers, is_old=is_old)
    given = read_pretrained(path)
    assert given.source == "VGG16 of Caffe"
    assert torch.equal(given.weights["conv6.weight"].flatten(1), layers["fc6"][0])
    x = bgr_input(image, CAFFE_BGR_MEAN)
    ours = our_pools(given)
    assert_same_maps(ours, pools(weights, x))
    cv2 = pytest.importorskip("cv2")
    net = cv2.dnn.readNetFromCaffe(np.frombuffer(prototxt(), np.uint8), np.fromfile(path, np.uint8))
    net.setInput(x.numpy())
    theirs = [torch.from_numpy(net.forward(f"pool{i}")) for i in range(1, 6)]
    assert_same_maps(ours, theirs)


# --- the dense layer that saw 7 x 7 maps --------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "flat", "is_transposed"),
    [
        (THEANO, (0, 1, 2), False),  # channels, rows, columns
        (TENSORFLOW, (1, 2, 0), False),  # rows, columns, channels
        (LAYOUTS["caffe"], (0, 1, 2), True),
    ],
)
def test_a_dense_layer_becomes_a_convolution(layout, flat, is_transposed):
    torch.manual_seed(0)
    maps, dense = torch.rand(4, 7, 7), torch.rand(4 * 49, 5)
    theirs = maps.permute(flat).reshape(-1) @ dense
    kernel = to_kernel(dense.T if is_transposed else dense, layout, side=7)
    torch.testing.assert_close(F.conv2d(maps[None], kernel)[0, :, 0, 0], theirs)
