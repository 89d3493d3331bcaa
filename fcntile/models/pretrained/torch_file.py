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
        reason = " ".join(str(error).split()).split(". ")[0][:200]
        raise ModelError(
            f"cannot read the weights {path}, which should be a state dict saved by torch: {reason}"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no state dict but a {type(content).__name__}")
    return Arrays("torch", _state(content))


def read_safetensors(path: Path) -> Arrays:
    """Return a state dict in a safetensors file.

    Raises:
        ModelError: if it is damaged.
    """
    try:
        return Arrays("torch", _state(load_file(path)))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"cannot read the weights {path}: {error}") from error


def _state(content: dict[Any, Any]) -> dict[str, Tensor]:
    """Return the tensors, named as before `DataParallel` wrapped their net."""
    return {
        str(name).removeprefix("module."): value.float() if value.is_floating_point() else value
        for name, value in content.items()
        if isinstance(value, Tensor)
    }
