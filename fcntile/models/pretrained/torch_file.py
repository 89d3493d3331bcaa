"""Weights that torch wrote: a state dict in a `.pth` file, or in a safetensors file."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fcntile.errors import ModelError
from fcntile.models.pretrained.arrays import Arrays

WRAPPERS = ("state_dict", "model_state_dict", "model")  # of training checkpoints


def read_torch(path: Path) -> Arrays:
    """Return a state dict; only tensors are ever built from the file.

    Raises:
        ModelError: if the file holds anything else, or is damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that torch did not write
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        reason = " ".join(str(error).split()).split(". ")[0][:200] or "it is damaged"
        raise ModelError(
            f"cannot read the weights {path}, which should be a state dict saved by torch "
            f"(torch.save(net.state_dict(), FILE)): {reason}"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no state dict but a {type(content).__name__}")
    return Arrays("torch", _state(path, content))


def read_safetensors(path: Path) -> Arrays:
    """Return a state dict in a safetensors file.

    Raises:
        ModelError: if it is damaged.
    """
    try:
        content = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"cannot read the weights {path}: {error}") from error
    return Arrays("torch", _state(path, content))


def _state(path: Path, content: dict[Any, Any]) -> dict[str, Tensor]:
    """Return the tensors, named as before `DataParallel` wrapped their net.

    Raises:
        ModelError: if one is not of plain numbers.
    """
    return {
        str(name).removeprefix("module."): _floats(path, name, value)
        for name, value in content.items()
        if isinstance(value, Tensor)
    }


def _floats(path: Path, name: Any, value: Tensor) -> Tensor:
    """Return a tensor as float32; NotImplementedError if torch cannot, as from 4 bits."""
    is_plain = value.layout == torch.strided and value.device.type == "cpu"
    if not is_plain or value.is_quantized or value.is_nested or value.is_complex():
        raise ModelError(
            f"{path} has in {name} a tensor of {value.dtype}, {value.layout}, on {value.device}: "
            "save it as float32, dense and on the CPU"
        )
    return value.detach().float()
