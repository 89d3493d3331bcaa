"""Tell a network by the shapes of its tensors."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fcntile.errors import ModelError
from fcntile.models.pretrained.names import layer_of


def check_shape(
    path: Path, net: str, tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...]
) -> None:
    """Raise ModelError unless a file's tensor has the shape that it has in a net."""
    found = tensors.get(name)
    if found is None or found.shape != shape:
        has = "none" if found is None else f"one of {tuple(found.shape)}"
        raise ModelError(
            f"{path} is another net than {net}: that has a {name.rpartition('.')[2]} of {shape} "
            f"in {layer_of(name)}, the file has {has}"
        )
