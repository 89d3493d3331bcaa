"""Weights that Keras wrote: HDF5, in three layouts."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fcntile.errors import ModelError
from fcntile.models.pretrained.arrays import Arrays, real_numbers

KINDS = ("weight", "bias")


def read_hdf5(path: Path) -> Arrays:
    """Return the weights of a Keras model.

    Raises:
        ModelError: if h5py is missing, or the file is damaged or not of Keras.
    """
    try:
        import h5py
    except ImportError as error:
        raise ModelError(f"reading {path} needs h5py: pip install 'fcntile[h5]'") from error
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            if "nb_layers" in root.attrs:
                return Arrays("classic", dict(_classic(root)))
            if "layer_names" in root.attrs:
                return Arrays("keras", dict(_legacy(root)))
            if "layers" in root:
                return Arrays("keras", dict(_keras3(root["layers"])))
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise ModelError(f"cannot read the weights {path}: {error}") from error
    raise ModelError(f"{path} is HDF5, but holds no weights in a layout of Keras")


def _classic(root: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of the layout before Keras 1.0: `layer_1/param_0`."""
    for name, group in root.items():
        for kind, number in zip(KINDS, range(int(group.attrs.get("nb_params", 0))), strict=False):
            yield f"{name}.{kind}", _tensor(group[f"param_{number}"])


def _legacy(root: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of the layout from Keras 1 on, which attributes describe.

    A weight is called `block1_conv1_W_1:0`, `block1_conv1/kernel:0` or, in a model within the
    model, `vgg16/block1_conv1/kernel:0`.
    """
    for layer in map(_text, root.attrs["layer_names"]):
        for name in map(_text, root[layer].attrs["weight_names"]):
            *above, last = name.split("/")
            match = re.search(r"(?:^|_)(kernel|bias|W|b)(?:_\d+)?(?::0)?$", last)
            if match:
                kind = "weight" if match[1] in ("kernel", "W") else "bias"
                yield f"{above[-1] if above else layer}.{kind}", _tensor(root[layer][name])


def _keras3(layers: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of a `.weights.h5` of Keras 3: `layers/conv2d_1/vars/0`, named beside."""
    for group in layers.values():
        variables = group.get("vars", {})
        for kind, number in zip(KINDS, ("0", "1"), strict=True):
            if number in variables:
                yield f"{_text(variables.attrs['name'])}.{kind}", _tensor(variables[number])


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _tensor(dataset: Any) -> Tensor:
    return torch.from_numpy(real_numbers(dataset[()]))
