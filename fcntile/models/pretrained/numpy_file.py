"""Weights in a `.npy` file: a pickled dictionary of layers, as tensorflow-vgg has it.

A pickle can run any code. This one may only build arrays, dictionaries and lists: a name that is
not needed for that is refused before it is looked up.
"""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from fcntile.errors import ModelError
from fcntile.models.pretrained.arrays import Arrays

KINDS = ("weight", "bias")
PLAIN = re.compile("[fiu][1248]|b1|O8?")  # dtypes, as numpy pickles their names


def _encode(text: str, encoding: str) -> bytes:
    """Return bytes that Python 3 pickled for Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding!r}")
    return text.encode(encoding)


class _Dtype:
    """A dtype in the making, of plain numbers or objects.

    numpy's own would take any state from the file, such as where in memory its objects are.
    """

    def __init__(self, name: str, *_: object) -> None:
        if not PLAIN.fullmatch(name):
            raise pickle.UnpicklingError(f"numbers of the kind {name!r}")
        self.name, self.order = name, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError(f"the byte order {state[1]!r}")
        self.order = state[1]

    def numbers(self, data: bytes | str) -> NDArray[Any]:
        """Return the numbers in some bytes, which Python 2 wrote as text."""
        content = data.encode("latin1") if isinstance(data, str) else data
        return np.frombuffer(content, np.dtype(self.order + self.name))


class _Array:
    """An array in the making: `value` are its numbers, or a list of its objects."""

    value: NDArray[Any] | list[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        *_, shape, dtype, is_fortran, data = state
        if dtype.name.startswith("O"):
            self.value = list(data)
        else:
            self.value = dtype.numbers(data).reshape(shape, order="F" if is_fortran else "C")


def _array(*_: object) -> _Array:
    return _Array()


def _scalar(dtype: _Dtype, data: bytes | str) -> Any:
    return dtype.numbers(data)[0]


ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
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
    objects = content.value if isinstance(content, _Array) else None
    layers = objects[0] if isinstance(objects, list) and len(objects) == 1 else content
    if not isinstance(layers, dict):
        raise ModelError(f"{path} holds no dictionary of layers, as vgg16.npy does")
    return Arrays("numpy", dict(_tensors(path, layers)))


def _tensors(path: Path, layers: dict[Any, Any]) -> list[tuple[str, Tensor]]:
    found = []
    for layer, values in layers.items():
        pair = [values.get("weights"), values.get("biases")] if isinstance(values, dict) else values
        pair = pair if isinstance(pair, list | tuple) else [pair]
        arrays = [v.value if isinstance(v, _Array) else v for v in pair]
        if len(arrays) < 2 or not all(isinstance(v, np.ndarray) for v in arrays):
            raise ModelError(f"layer {layer} of {path} is not [kernel, bias]")
        for kind, value in zip(KINDS, arrays, strict=False):
            found.append((f"{layer}.{kind}", torch.from_numpy(np.array(value, np.float32))))
    return found
