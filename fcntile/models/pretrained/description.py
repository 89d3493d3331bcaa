"""Weights of another framework, in the one kind that fcntile computes with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fcntile.models.card import Band

COLOURS = ("red", "green", "blue")


@dataclass(frozen=True)
class Pretrained:
    """What was found in a file of weights.

    Args:
        source: what the file is, for people.
        weights: float32 by neutral name: `conv1_1.weight` to `conv5_3.bias`, `conv6`, `conv7` and
            `conv8` (fc6 to fc8 as convolutions), `score_fr`, `score_pool4`, `score_pool3`; of
            ResNet-50 torchvision's names, and `score` for its fc. Kernels are (outputs, inputs,
            rows, columns) of a correlation, the first one's inputs red, green, blue.
        bands: red, green, blue with the mean and deviation to normalise uint8 rasters with.
        spread: deviation of natural images after that: 1, or about 58 where only the mean goes.
        upsampling: what the file has of transposed convolutions, by layer.
        others: layers of the file that are none of all these.
        classes: names of the classes of its scores, if the file has any.
    """

    source: str
    weights: Mapping[str, Tensor]
    bands: tuple[Band, ...]
    spread: float
    upsampling: Mapping[str, Tensor] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    @property
    def arch(self) -> str:
        """The network to train with these weights if none is asked for."""
        return "fcn8s" if "conv1_1.weight" in self.weights else "fcn-resnet50"

    @property
    def arch_options(self) -> dict[str, Any]:
        """Its options that the weights ask for."""
        return {} if "conv1_1.weight" in self.weights else {"style": "torchvision"}


def colour_bands(mean: Sequence[float], std: Sequence[float] = (1.0, 1.0, 1.0)) -> tuple[Band, ...]:
    """Return red, green and blue with their mean and deviation."""
    return tuple(Band(*values) for values in zip(COLOURS, mean, std, strict=True))
