"""Checkpoints: the whole state of a run in one safetensors file, which can execute nothing.

A checksum of the state, and of the tensors' names and shapes, says that fcntile wrote them: what it
wrote need not be checked piece by piece.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fcntile.errors import ModelError
from fcntile.models.model_file import save_tensors

STATE_KEY, SUM_KEY = "fcntile_checkpoint", "fcntile_checksum"


def save_checkpoint(
    path: Path,
    modules: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
) -> None:
    """Write a checkpoint, of which the last or this one is whole at any time.

    Args:
        path: of the file.
        modules: whose weights and buffers to keep, by name.
        optimizer: whose state to keep; its hyper-parameters are not.
        state: what else, as JSON has it.

    Raises:
        OutputError: if it cannot be written; the file before it is still there then.
    """
    tensors: dict[str, Tensor | None] = {
        f"{name}.{key}": value
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    for i, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{slot}": value for slot, value in slots.items()}
    copies = {
        key: value.detach().cpu().contiguous().clone()
        for key, value in tensors.items()
        if value is not None
    }
    text, shapes = json.dumps(state), {key: copy.shape for key, copy in copies.items()}
    save_tensors(path, copies, {STATE_KEY: text, SUM_KEY: _checksum(text, shapes)})


def load_checkpoint(
    path: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer
) -> None:
    """Bring modules and an optimiser back to the state in a checkpoint.

    Raises:
        ModelError: if the file is not a checkpoint of such a run.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        for name, module in modules.items():
            module.load_state_dict(_under(name, tensors))
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in _under("optimizer", tensors).items():
            i, slot = key.split(".")
            slots.setdefault(int(i), {})[slot] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path} is not a checkpoint of this run: {error}") from error


def read_state(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says beside its tensors.

    Raises:
        ModelError: if the file is no checkpoint, or not as it was written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
        text = metadata[STATE_KEY]
    except (SafetensorError, OSError, KeyError) as error:
        raise ModelError(f"{path} is not a checkpoint of fcntile: {error}") from error
    if metadata.get(SUM_KEY) != _checksum(text, shapes):
        raise ModelError(f"the checkpoint {path} is damaged: begin the run anew with --overwrite")
    state: dict[str, Any] = json.loads(text)
    return state


def _checksum(text: str, shapes: Mapping[str, Sequence[int]]) -> str:
    tensors = sorted((key, *shape) for key, shape in shapes.items())
    return hashlib.sha256(f"{text} {tensors}".encode()).hexdigest()


def _under(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{name}."
    return {key.removeprefix(start): t for key, t in tensors.items() if key.startswith(start)}
