"""The settings of a training run, and those that papers published.

No import here is heavy: the command line reads its defaults from this file.
"""

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fcntile.errors import OptionError, check_choice, check_range

LOSSES = ("ce", "dice", "focal")
OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "poly", "constant")
LARGEST = 65536  # px of a window, windows of a batch, batches of an update
MAX_SEED = 2**32 - 1  # the number of an update comes after it in 64 bits


@dataclass(frozen=True)
class Settings:
    """How to train: all that changes the result, beside the data.

    Args:
        arch: name of the network; None is that of the model to start from, or fcn8s-small.
        arch_options: its options.
        steps: updates of the weights.
        window: side of a training window in px, a multiple of the net's stride.
        batch_size: windows per forward pass, over all processes.
        accumulate: forward passes per update.
        loss: sum of losses, such as "ce+0.5*dice".
        class_weights: "none", "auto" (median frequency balancing) or a number for each class.
        optimizer: "adamw" or "sgd".
        lr: learning rate at its highest.
        momentum: of SGD.
        weight_decay: on kernels; biases and norms have none.
        bias_lr: factor on the learning rate of biases and norms.
        schedule: "cosine", "poly" (power 0.9) or "constant".
        warmup: updates in which the learning rate rises from 0.
        clip_grad: largest norm of the gradient; 0 for no limit.
        ema: decay of the moving average of weights that is validated and saved; 0 for none.
        balance: share of windows drawn by class, all classes alike; the others by area.
        scale: largest factor by which windows are shrunk or enlarged.
        jitter: largest change of brightness (in standard deviations) and contrast (e-folds).
        flip: mirror and turn windows by quarters.
        precision: "auto" (fp32), "fp32", "bf16" or "fp16" for forward passes.
        val_share: share of the ground held out for validation.
        val_every: updates from one validation to the next; 0 is a twentieth of `steps`.
        seed: of everything random.
    """

    arch: str | None = None
    arch_options: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 5000
    window: int = 256
    batch_size: int = 8
    accumulate: int = 1
    loss: str = "ce"
    class_weights: str = "none"
    optimizer: str = "adamw"
    lr: float = 3e-3
    momentum: float = 0.9
    weight_decay: float = 0.02
    bias_lr: float = 1.0
    schedule: str = "cosine"
    warmup: int = 200
    clip_grad: float = 5.0
    ema: float = 0.998
    balance: float = 0.5
    scale: float = 2.0
    jitter: float = 0.3
    flip: bool = True
    precision: str = "auto"
    val_share: float = 0.2
    val_every: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be trained with."""
        parse_loss(self.loss)
        parse_class_weights(self.class_weights)
        any_size = ("lr", "weight_decay", "bias_lr", "warmup", "clip_grad", "jitter", "val_every")
        limits: dict[str, tuple[float, float | None]] = {
            "steps": (1, sys.maxsize),
            **dict.fromkeys(("window", "batch_size", "accumulate"), (1, LARGEST)),
            "ema": (0, 0.99999),
            "momentum": (0, 0.99999),
            "balance": (0, 1),
            "val_share": (0, 0.9),
            "scale": (1, 8),
            "seed": (0, MAX_SEED),
            **dict.fromkeys(any_size, (0, None)),
        }
        for name, (low, high) in limits.items():
            check_range(f"--{name.replace('_', '-')}", getattr(self, name), low, high)
        check_choice("--optimizer", self.optimizer, OPTIMIZERS)
        check_choice("--schedule", self.schedule, SCHEDULES)

    @property
    def validate_every(self) -> int:
        """Updates from one validation to the next."""
        return self.val_every or max(1, self.steps // 20)


# Long, Shelhamer and Darrell (arXiv 1411.4038) and the solvers of their reference implementation
# (shelhamer/fcn.berkeleyvision.org). Its loss is a sum over pixels. A mean over the same window, of
# 512 x 512 px here, makes the same updates at a learning rate times its pixels; the decay, which is
# multiplied by that rate too, is divided by them.
_HEAVY: dict[str, Any] = {
    "steps": 100_000,
    "window": 512,
    "batch_size": 1,
    "optimizer": "sgd",
    "lr": 1e-10 * 512**2,
    "momentum": 0.99,
    "weight_decay": 5e-4 / 512**2,
    "bias_lr": 2.0,
    "schedule": "constant",
    "warmup": 0,
    "clip_grad": 0.0,
    "ema": 0.0,
    "balance": 0.0,
    "scale": 1.0,
    "jitter": 0.0,
    "flip": False,
}
RECIPES: dict[str, dict[str, Any]] = {
    "fcn-heavy": _HEAVY,
    "fcn-heavy-16s": {**_HEAVY, "lr": 1e-12 * 512**2},
    "fcn-heavy-8s": {**_HEAVY, "lr": 1e-14 * 512**2},
    "fcn-heavy-atonce": {**_HEAVY, "steps": 300_000},
    "fcn-cvpr": {**_HEAVY, "batch_size": 20, "lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4},
}


def make_settings(recipe: str | None = None, **given: Any) -> Settings:
    """Return the settings of a recipe, or the defaults, changed by what is given and not None.

    The recipes' learning rates and decays are for their window; another `window` scales those of a
    summed loss by its pixels.

    Raises:
        OptionError: if a recipe or a setting is unknown, or has a value it cannot have.

    >>> make_settings("fcn-heavy").lr == 1e-10 * 512**2
    True
    """
    if recipe is not None and recipe not in RECIPES:
        raise OptionError(f"no recipe is called {recipe!r}; there are {', '.join(RECIPES)}")
    given = {name: value for name, value in given.items() if value is not None}
    if unknown := given.keys() - {f.name for f in fields(Settings)}:
        raise OptionError(f"there is no setting {min(unknown)}")
    settings = replace(Settings(), **{**RECIPES.get(recipe or "", {}), **given})
    if recipe and recipe.startswith("fcn-heavy"):
        share = (settings.window / 512) ** 2
        scaled = {"lr": settings.lr * share, "weight_decay": settings.weight_decay / share}
        settings = replace(settings, **{**scaled, **given})
    return settings


def parse_loss(text: str) -> dict[str, float]:
    """Return the weight of each loss in a sum.

    >>> parse_loss("ce+0.5*dice")
    {'ce': 1.0, 'dice': 0.5}
    """
    terms = {}
    for term in text.split("+"):
        match = re.fullmatch(r"(?:(\d*\.?\d+)\*)?([a-z]+)", term.strip())
        if not match or match[2] not in LOSSES or match[2] in terms or float(match[1] or 1) == 0:
            raise OptionError(
                f"loss {text!r} is not a sum of {', '.join(LOSSES)}, such as ce+0.5*dice"
            )
        terms[match[2]] = float(match[1] or 1)
    return terms


def parse_class_weights(text: str) -> str | list[float]:
    """Return the weight of each class; "none" and "auto" as they are.

    >>> parse_class_weights("1,2.5")
    [1.0, 2.5]
    """
    if text in ("none", "auto"):
        return text
    try:
        weights = [float(number) for number in text.split(",")]
    except ValueError:
        weights = []
    if not any(weights) or not all(0 <= w < math.inf for w in weights):
        raise OptionError(
            f"class weights {text!r} are neither none, auto nor a number from 0 for each class, "
            "such as 1,2.5"
        )
    return weights
