"""Weights of a Caffe net: a `.caffemodel` file, which is a protocol buffer.

Only the fields that hold weights are declared, with the numbers that `caffe.proto` gives them.
Blobs are declared as bytes: a packed field looks the same, and 100 million floats stay one copy.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fcntile.errors import ModelError
from fcntile.models.pretrained.arrays import Arrays

KINDS = ("weight", "bias")
LARGEST = 2**31 - 1  # bytes that a protocol buffer may have
OLD_SHAPE = ("num", "channels", "height", "width")
# message -> field -> (number, type, is repeated)
MESSAGES: dict[str, dict[str, tuple[int, str, bool]]] = {
    "BlobShape": {"dim": (1, "int64", True)},
    "BlobProto": {
        **{name: (number, "int32", False) for number, name in enumerate(OLD_SHAPE, 1)},
        "data": (5, "bytes", True),
        "shape": (7, "BlobShape", False),
    },
    "LayerParameter": {
        "name": (1, "string", False),
        "type": (2, "string", False),
        "blobs": (7, "BlobProto", True),
    },
    "V1LayerParameter": {"name": (4, "string", False), "blobs": (6, "BlobProto", True)},
    "NetParameter": {
        "layers": (2, "V1LayerParameter", True),  # before 2014
        "layer": (100, "LayerParameter", True),
    },
}


def read_caffe(path: Path) -> Arrays:
    """Return the weights of a Caffe net.

    Raises:
        ModelError: if protobuf is missing, or the file is no such net.
    """
    try:
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise ModelError(
            f"{path} is no file of Keras, numpy, MATLAB or torch; to read it as one of Caffe "
            "needs protobuf: pip install 'fcntile[caffe]'"
        ) from error
    unknown = (
        f"{path} is no file of weights that fcntile knows (Keras, numpy, MATLAB, torch, Caffe)"
    )
    if path.stat().st_size > LARGEST:
        raise ModelError(unknown)
    try:
        net = _net_message()()
        net.ParseFromString(path.read_bytes())
        tensors = dict(_tensors(net))
    except (DecodeError, ValueError) as error:
        raise ModelError(unknown) from error
    if not tensors:
        raise ModelError(unknown)
    return Arrays("caffe", tensors)


def _tensors(net: Any) -> Iterator[tuple[str, Tensor]]:
    for layer in (*net.layers, *net.layer):
        for kind, blob in zip(KINDS, layer.blobs, strict=False):
            values = np.frombuffer(b"".join(blob.data), "<f4")
            shape = list(blob.shape.dim) or [getattr(blob, name) for name in OLD_SHAPE]
            if shape[:2] == [1, 1]:  # how old files pad a dense layer's (outputs, inputs)
                shape = shape[2:]
            tensor = torch.from_numpy(values.astype("f4"))
            yield f"{layer.name}.{kind}", tensor.reshape(-1 if kind == "bias" else shape)


@cache
def _net_message() -> Any:
    """Return the class of `NetParameter`."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="fcntile_caffe.proto", package="fcntile.caffe", syntax="proto2"
    )
    for message, fields in MESSAGES.items():
        declared = file.message_type.add(name=message)
        for name, (number, kind, is_repeated) in fields.items():
            is_message = kind in MESSAGES
            declared.field.add(
                name=name,
                number=number,
                label=3 if is_repeated else 1,
                type=descriptor_pb2.FieldDescriptorProto.Type.Value(
                    "TYPE_MESSAGE" if is_message else f"TYPE_{kind.upper()}"
                ),
                type_name=f".fcntile.caffe.{kind}" if is_message else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    net = pool.FindMessageTypeByName("fcntile.caffe.NetParameter")
    return message_factory.GetMessageClass(net)
