"""Change a training window as the ground could have looked: nothing here knows about colours."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """How much windows are changed.

    Args:
        scale: largest factor by which they are shrunk or enlarged, >= 1.
        jitter: largest change of brightness in standard deviations, and of contrast in e-folds,
            once for all bands and half as much for each.
        flip: mirror them and turn them by quarters.
    """

    scale: float = 2.0
    jitter: float = 0.3
    flip: bool = True

    def draw_side(self, window: int, rng: np.random.Generator) -> int:
        """Return the side in px of the ground that is shown in a window of `window` px."""
        reach = math.log(self.scale)
        return max(1, round(window * math.exp(rng.uniform(-reach, reach))))

    def __call__(
        self, x: Tensor, valid: Tensor, labels: Tensor, window: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return a window and its labels, changed alike.

        Args:
            x: (bands, side, side) float32, normalised, 0 where there is no data.
            valid: (side, side) bool.
            labels: (side, side) int64.
            window: side of the result in px.
            rng: where chance comes from.

        Returns:
            (bands, window, window) and (window, window)
        """
        side = x.shape[1]
        if side != window:
            x = F.interpolate(x[None], (window, window), mode="bilinear", antialias=side > window)[
                0
            ]
            nearest = ((torch.arange(window) + 0.5) * side / window).long()
            valid, labels = (t[nearest][:, nearest] for t in (valid, labels))
        if self.flip:
            turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
            x, valid, labels = (
                _turn(t.flip(-1) if mirror else t, turns) for t in (x, valid, labels)
            )
        if self.jitter:
            x = self._jitter(x, rng)
        return x * valid, labels

    def _jitter(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        def change() -> Tensor:
            shared, own = rng.uniform(-1, 1), rng.uniform(-0.5, 0.5, len(x))
            return torch.from_numpy((shared + own) * self.jitter).float()[:, None, None]

        mean = x.mean((1, 2), keepdim=True)
        return (x - mean) * change().exp() + mean + change()


def _turn(t: Tensor, quarters: int) -> Tensor:
    return t.rot90(quarters, (-2, -1))
