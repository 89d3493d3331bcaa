"""The model file: one `.safetensors` file, weights plus a JSON card in its header.

The format holds numbers and text only, so a file from a stranger can never execute anything.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fcntile.errors import ModelError
from fcntile.files import whole_file
from fcntile.models.card import Card
from fcntile.models.registry import Net, build_on_meta

CARD_KEY = "fcntile"
BUNDLED = Path(__file__).parent / "bundled"


@dataclass(frozen=True)
class Model:
    """A net and its card.

    Args:
        net: in evaluation mode, on the CPU; (N, bands, H, W) -> (N, classes, H, W).
        card: what the net expects and gives.
        sha256: of the model file.
        file: its path, and what it was when the weights were mapped; None if there is none.
    """

    net: Net
    card: Card
    sha256: str
    file: tuple[Path, os.stat_result] | None = None

    def check_unchanged(self) -> None:
        """Raise ModelError if the file was written over, and the mapped weights with it.

        Another file under its name, as `save_model` puts there, changes nothing here.
        """
        if self.file is None:
            return
        path, before = self.file
        try:
            now = path.stat()
        except OSError:
            return  # its name is gone, but not what is mapped
        was_written = (now.st_mtime_ns, now.st_size) != (before.st_mtime_ns, before.st_size)
        if now.st_ino == before.st_ino and was_written and _sha256(path) != self.sha256:
            raise ModelError(
                f"{path} was written over since the run began, and some parts may be by other "
                "weights: use --restart"
            )


def bundled_models() -> list[str]:
    """Return the names of the models that come with fcntile.

    >>> bundled_models()
    ['buildings']
    """
    return sorted(path.stem for path in BUNDLED.glob("*.safetensors"))


def save_model(path: str | Path, net: Net, card: Card) -> None:
    """Write a model file, which appears only when it is whole.

    Raises:
        OutputError: if it cannot be written.
    """
    weights = {key: value.contiguous() for key, value in net.state_dict().items()}
    save_tensors(Path(path), weights, {CARD_KEY: card.to_json()})


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file beside `path`, then give it that name.

    Raises:
        OutputError: if it cannot be written; a file that was there before still is.
    """
    with whole_file(path) as written:
        written.touch()
        mode = written.stat().st_mode  # as the user wants it: safetensors lets nobody else read
        try:
            save_file(dict(tensors), written, metadata=dict(metadata))
        except SafetensorError as error:
            raise OSError from error
        written.chmod(mode)


def load_model(name: str | Path) -> Model:
    """Return the model in a file, or a bundled one by its name.

    The net is built without memory and the weights are mapped from the file, so they are held once.

    Args:
        name: path of a model file, or one of `bundled_models()`.

    Raises:
        ModelError: if there is no such file, or it is not a model file of fcntile.
    """
    path, before, card, weights = _read(name)
    net = build_on_meta(card.arch, len(card.bands), len(card.classes), card.arch_options)
    try:
        net.load_state_dict(weights, assign=True)
        net.float()
    except RuntimeError as error:
        raise ModelError(
            f"the weights in {path} are not those of {card.arch} {card.arch_options}: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    return Model(net.eval().requires_grad_(False), card, _sha256(path), (path, before))


def read_card(name: str | Path) -> Card:
    """Return the card of a model file, or of a bundled model by its name.

    Raises:
        ModelError: if there is no such file, or it is not a model file of fcntile.
    """
    return _read(name)[2]


def is_file(name: str | Path) -> bool:
    """Tell whether a file is called that, which may be too long for any."""
    return os.path.isfile(name)  # noqa: PTH113 (Path.is_file raises then)


def _read(name: str | Path) -> tuple[Path, os.stat_result, Card, dict[str, Tensor]]:
    """Return the path of a model, its state, its card, and its weights mapped from the file."""
    path = BUNDLED / f"{name}.safetensors" if name in bundled_models() else Path(name)
    if not is_file(path):
        raise ModelError(
            f"there is no model file {name}, and no bundled model of that name "
            f"(there is {', '.join(bundled_models())})"
        )
    try:
        before = path.stat()
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a model file (safetensors): {error}") from error
    if CARD_KEY not in metadata:
        raise ModelError(f"{path} holds weights but no fcntile card, so its bands are unknown")
    for key, weight in weights.items():
        if not weight.is_floating_point() and not key.endswith("num_batches_tracked"):
            raise ModelError(
                f"{path} has in {key} a tensor of {weight.dtype}, wanted are real floating-point "
                "numbers: save it as float32"
            )
    return path, before, Card.from_json(metadata[CARD_KEY]), weights


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
