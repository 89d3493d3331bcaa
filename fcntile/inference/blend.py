"""Blend the logits of overlapping tiles and reduce them to class ids, on the device.

Where two tiles meet, the left (upper) one's weight falls from 1 to 0 as the right (lower) one's
rises: a raised cosine, `up(i) = 0.5 - 0.5 cos(pi (i + 0.5) / ramp)`, and `1 - up(i)` for the other.
Written as an interpolation, `left + up * (right - left)`, the two weights sum to 1 by construction:
no weight sum, no division, and two tiles that agree to the bit keep their logits to the bit.

Only what is still open is kept: the right junction of the tile before, and the bottom junctions of
the tile row above. Everything else is final as soon as its tile arrives, and leaves as class ids.
"""

from collections.abc import Generator, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fcntile.errors import ModelError
from fcntile.inference.clock import Clock
from fcntile.inference.engine import Tile
from fcntile.inference.tiling import Tiling
from fcntile.raster.writer import NODATA


def taper(ramp: int) -> Tensor:
    """Return the rising half of the taper.

    Shape:
        (ramp,) float32, from just above 0 to just below 1
    """
    i = torch.arange(ramp, dtype=torch.float64)
    return (0.5 - 0.5 * torch.cos(torch.pi * (i + 0.5) / ramp)).float()


def blend(
    tiles: Iterable[Tile], tiling: Tiling, classes: int, device: torch.device, clock: Clock
) -> Generator[NDArray[np.uint8], None, None]:
    """Yield the finished rows of the mask, one block of rows for each row of tiles.

    Args:
        tiles: inferred tiles in row-major order, every one of `tiling`.
        tiling: the grid they belong to.
        classes: channels of the logits.
        device: where the logits are, and all arithmetic is done.
        clock: counts the seconds of "blend".

    Yields:
        (rows, width) uint8 class ids, 255 where there is no data.

    Raises:
        ModelError: if a logit is infinite or not a number.
    """
    y, x = tiling.y, tiling.x
    up = taper(x.ramp).to(device)
    above = torch.zeros(classes, y.ramp, x.size, device=device)  # bottom junctions of the row above
    left: Tensor | None = None  # right junction of the tile before
    total = torch.zeros((), device=device)  # of the best logits; NaN and infinity stick to it
    for tile in tiles:
        with clock("blend"):
            if tile.column == 0:
                first, stop = y.finished(tile.row)
                rows = torch.full((stop - first, x.size), NODATA, dtype=torch.uint8, device=device)
                left = None
            left = _add(tile, tiling, up, above, left, rows, total)
            if tile.column < x.count - 1:
                continue
            finished = rows.cpu().numpy()
            if not torch.isfinite(total):
                raise ModelError(
                    f"the net gives infinite or undefined logits in rows {first} to {stop - 1}: "
                    "the model is broken, or the precision too low for it (use fp32)"
                )
        yield finished


@torch.inference_mode()
def _add(
    tile: Tile,
    tiling: Tiling,
    up: Tensor,
    above: Tensor,
    left: Tensor | None,
    rows: Tensor,
    total: Tensor,
) -> Tensor | None:
    """Blend one tile with its left and upper neighbours; return its right junction.

    A tile without data adds nothing: every pixel of it, junctions included, is nodata.
    """
    if tile.logits is None:
        return None
    y, x, ramp = tiling.y, tiling.x, tiling.x.ramp
    (y0, y1), (x0, x1) = y.counted(tile.row), x.counted(tile.column)
    top, side = y.start(tile.row), x.start(tile.column)
    logits = tile.logits[:, y0 - top : y1 - top, x0 - side : x1 - side]

    if left is not None:
        logits[:, :, :ramp] = torch.lerp(left, logits[:, :, :ramp], up)
    right = logits[:, :, -ramp:] if ramp and tile.column < x.count - 1 else None
    x1 = x.finished(tile.column)[1]
    logits = logits[:, :, : x1 - x0]
    if tile.row > 0:
        logits[:, :ramp] = torch.lerp(above[:, :, x0:x1], logits[:, :ramp], up[:, None])
    if tile.row < y.count - 1:
        above[:, :, x0:x1] = logits[:, logits.shape[1] - ramp :]
    y1 = y.finished(tile.row)[1]

    best, ids = logits[:, : y1 - y0].max(0)  # several times faster than argmax on CPUs
    total += best.sum()
    rows[:, x0:x1] = ids
    if tile.valid is not None:
        invalid = ~tile.valid[y0 - top : y1 - top, x0 - side : x1 - side]
        rows[:, x0:x1].masked_fill_(invalid, NODATA)
    return right
