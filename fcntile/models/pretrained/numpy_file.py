"""Weights in a `.npy` file: a pickled dictionary of layers, as tensorflow-vgg has it.

A pickle can run any code. This one may only build arrays, dictionaries and lists: a name that is
not needed for that is refused before it is looked up.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from fcntile.errors import ModelError
from fcntile.models.pretrained.arrays import Arrays

KINDS = ("weight", "bias")


def _encode(text: str, encoding: str) -> bytes:
    """Return bytes that Python 3 pickled for Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding!r}")
    return text.encode(encoding)


_array, _scalar = (value.__reduce__()[0] for value in (np.empty(0), np.float32()))
ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
}
for core in ("core", "_core"):  # where numpy 1 and numpy 2 have them
    ALLOWED[f"numpy.{core}.multiarray", "_reconstruct"] = _array
    ALLOWED[f"numpy.{core}.multiarray", "scalar"] = _scalar


class ArraysOnly(pickle.Unpickler):
    """Builds arrays and containers of them, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for, if arrays need it."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        return ALLOWED[module, name]


def read_numpy(path: Path) -> Arrays:
    """Return the weights in a `.npy` file: name of the layer -> [kernel, bias].

    Raises:
        ModelError: if it holds anything but arrays, or is damaged.
    """
    try:
        with path.open("rb") as file:
            version = npy.read_magic(file)
            header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            _, _, dtype = header(file)
            if not dtype.hasobject:
                raise ModelError(f"{path} holds a single array, wanted is a dictionary of layers")
            content = ArraysOnly(file, encoding="latin1").load()
    except ModelError:
        raise
    except Exception as error:  # a pickle can fail in any way
        raise ModelError(f"cannot read the weights {path}: {error}") from error
    layers = content.item() if isinstance(content, np.ndarray) and content.size == 1 else content
    if not isinstance(layers, dict):
        raise ModelError(f"{path} holds no dictionary of layers, as vgg16.npy does")
    return Arrays("numpy", dict(_tensors(path, layers)))


def _tensors(path: Path, layers: dict[Any, Any]) -> list[tuple[str, Tensor]]:
    found = []
    for layer, values in layers.items():
        pair = [values.get("weights"), values.get("biases")] if isinstance(values, dict) else values
        if not isinstance(pair, list | tuple) or not all(isinstance(v, np.ndarray) for v in pair):
            raise ModelError(f"layer {layer} of {path} is not [kernel, bias]")
        for kind, value in zip(KINDS, pair, strict=False):
            found.append((f"{layer}.{kind}", torch.from_numpy(np.asarray(value, np.float32))))
    return found
