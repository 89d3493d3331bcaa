"""The ways to blend tiles that seams.py compares."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from fcntile.inference.grid import default_guard

TILE = 512
HANN = "Hann, whole tile"
GUARDS = [Fraction(k, 48) for k in (3, 4, 6, 12, 15, 18)]  # shares of the overlap


@dataclass(frozen=True)
class Taper:
    """Weights of a tile: the product of the same window along both axes.

    Args:
        window: of an overlap, (TILE,) float64. Weights need not sum to 1: only the highest logit
            counts, and a division by their sum does not change which one that is.
        least: smallest weight of a pixel.
    """

    window: Callable[[int], Tensor]
    least: float = 0


def junction(up: Callable[[Tensor], Tensor], guard: int = 0) -> Taper:
    """Return a taper that rises by up(t), 0 < t < 1, over the overlap less its guards."""

    def window(overlap: int) -> Tensor:
        ramp = overlap - 2 * guard
        rise = up((torch.arange(ramp, dtype=torch.float64) + 0.5) / max(1, ramp))
        side = torch.cat([torch.zeros(guard), rise, torch.ones(guard)])
        return torch.cat([side, torch.ones(TILE - 2 * overlap), side.flip(0)])

    return Taper(window)


def cosine(t: Tensor) -> Tensor:
    """The one of fcntile."""
    return 0.5 - 0.5 * torch.cos(torch.pi * t)


def linear(t: Tensor) -> Tensor:
    """The straight one."""
    return t


def squares(t: Tensor) -> Tensor:
    """The junction that normalised Hann windows make of a small overlap."""
    return t**2 / (t**2 + (1 - t) ** 2)


def hann(_overlap: int) -> Tensor:
    """The window over whole tiles that programs divide by its sum."""
    return torch.sin(torch.pi * (torch.arange(TILE, dtype=torch.float64) + 0.5) / TILE) ** 2


def gaussian(_overlap: int) -> Tensor:
    """A deviation of an eighth of a tile, as in nnU-Net and MONAI."""
    x = torch.arange(TILE, dtype=torch.float64) - (TILE - 1) / 2
    return torch.exp(-(x**2) / (2 * (TILE / 8) ** 2))


def tapers(overlap: int, halo: int | None) -> dict[str, Taper]:
    """Return the tapers to compare, by name."""
    found = {
        HANN: Taper(hann),
        "gaussian, whole tile": Taper(gaussian, least=1e-3),  # MONAI's clamp
        "linear": junction(linear),
        "squares": junction(squares),
        "crop": junction(cosine, overlap // 2),
        "cosine": junction(cosine),
    }
    for share in GUARDS:
        guard = overlap * share.numerator // share.denominator
        found[f"cosine, guard {share}"] = junction(cosine, guard)
    found["cosine, default guard"] = junction(cosine, default_guard(overlap, halo))
    return found
