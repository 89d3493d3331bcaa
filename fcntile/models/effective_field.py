"""How far a net looks in fact: its effective receptive field, from gradients.

Luo, Li, Urtasun and Zemel, *Understanding the Effective Receptive Field in Deep Convolutional
Neural Networks* (NIPS 2016, arXiv 1701.04128): put a gradient of 1 on one unit of the output and
propagate it back; how large it is at a pixel of the input says how much that pixel matters. Most of
the theoretical field hardly matters at all.

Here the unit is the logit of the class that wins there, and absolute gradients are averaged over
units: of every phase of the net's stride, because pooling treats them differently, and of different
ground, because ReLUs do. What counts is their sum over bands, per deviation of a band: it bounds
how much the logit changes, to first order, if each pixel changes by that much.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from fcntile.errors import ModelError

PHASES = 4  # of the stride along one axis


@dataclass(frozen=True)
class EffectiveField:
    """Mean absolute gradient of a logit, by place relative to the logit's pixel.

    Args:
        gradient: (2 H - 1, 2 W - 1) float64, not negative; the logit's own pixel is in the middle.
            H and W are those of the window it was measured in.
        places: logits that it is the mean of.
    """

    gradient: Tensor
    places: int

    def shares(self) -> Tensor:
        """Return, by radius r from 0, the share of the gradient in the square of 2 r + 1 px.

        Shape:
            (max(H, W),) float64, rising to 1
        """
        rows, columns = ((torch.arange(size) - size // 2).abs() for size in self.gradient.shape)
        radius = torch.maximum(rows[:, None], columns)
        rings = torch.bincount(radius.flatten(), self.gradient.flatten())
        return rings.cumsum(0) / rings.sum()

    def radius(self, share: float) -> int:
        """Return the px around the middle that hold a share of the gradient, 0 < share < 1."""
        return int((self.shares() < share).sum())

    def side(self, share: float) -> int:
        """Return the side in px of the centred square that holds a share of the gradient."""
        return 2 * self.radius(share) + 1


def measure_field(net: nn.Module, x: Tensor, places: Sequence[tuple[int, int]]) -> EffectiveField:
    """Return the effective receptive field of a net over one window.

    Args:
        net: in evaluation mode, on the device of `x`.
        x: (1, bands, H, W) float32, normalised.
        places: row and column of each logit whose gradient is averaged.

    Raises:
        ModelError: if no pixel has a gradient, or one that is no number.
    """
    height, width = x.shape[2:]
    total = torch.zeros(2 * height - 1, 2 * width - 1, dtype=torch.float64, device=x.device)
    x = x.detach().requires_grad_()
    best = net(x)[0].amax(0)  # (H, W)
    for i, (row, column) in enumerate(places, 1):
        (slope,) = torch.autograd.grad(best[row, column], x, retain_graph=i < len(places))
        top, left = height - 1 - row, width - 1 - column
        total[top : top + height, left : left + width] += slope[0].abs().sum(0) / len(places)
    if not 0 < total.sum() < torch.inf:
        raise ModelError(
            "the net's best logit does not depend on the image in the middle of this window "
            "(its gradient is 0 or no number): choose another window"
        )
    return EffectiveField(total.cpu(), len(places))


def spread_places(
    height: int, width: int, stride: int, receptive_field: int
) -> list[tuple[int, int]]:
    """Return row and column of logits around the middle of a window, of every phase of the stride.

    They spread as far as the window has room beside their receptive fields, but over a quarter of
    it at least: one place alone would tell more of what lies there than of the net.

    >>> spread_places(64, 96, 32, 64)[:5]
    [(32, 32), (32, 40), (32, 48), (32, 56), (40, 32)]
    """

    def along(size: int) -> list[int]:
        steps = max(size // 4, size - receptive_field) // PHASES // stride
        first = (size - steps * PHASES * stride) // 2 // stride * stride
        found = {first + i * steps * stride + i * stride // PHASES for i in range(PHASES)}
        return sorted(place for place in found if place < size)

    return list(product(along(height), along(width)))
