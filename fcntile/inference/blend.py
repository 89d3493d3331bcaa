"""Blend the logits of overlapping tiles and reduce them to classes, on the device.

Where two tiles meet, the left (upper) one's weight falls from 1 to 0 as the right (lower) one's
rises: a raised cosine, `up(i) = 0.5 - 0.5 cos(pi (i + 0.5) / ramp)`, and `1 - up(i)` for the other.
Written as an interpolation, `left + up * (right - left)`, the two weights sum to 1 by construction:
no weight sum, no division, and two tiles that agree to the bit keep their logits to the bit.

Only what is still open is kept: the right junction of the tile before, and the bottom junctions of
the tile row above. Everything else is final as soon as its tile arrives, and leaves as positions:
which channel of the net is highest. `class_values` turns them into what the mask says.
"""

from collections.abc import Generator, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fcntile.errors import ModelError
from fcntile.inference.engine import Tile, out_of_memory
from fcntile.inference.stages import Clock
from fcntile.inference.tiling import Tiling
from fcntile.raster.writer import NODATA, mask_dtype

# Positions where there is no data: all bits set, so 255, or 65535 once int16 is read as uint16.
# (torch's own uint16 has no arithmetic.)
NO_POSITION = {torch.uint8: 255, torch.int16: -1}


def taper(ramp: int) -> Tensor:
    """Return the rising half of the taper.

    Shape:
        (ramp,) float32, from just above 0 to just below 1
    """
    i = torch.arange(ramp, dtype=torch.float64)
    return (0.5 - 0.5 * torch.cos(torch.pi * (i + 0.5) / ramp)).float()


def position_dtype(classes: int) -> torch.dtype:
    """Return the smallest dtype with a number for each class and one for no data."""
    return torch.uint8 if classes <= NO_POSITION[torch.uint8] else torch.int16


def best_class(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the highest logit of each pixel and its position, the first one among equals.

    On CPUs torch's own argmax and max are several times slower than this running maximum, which
    stays in bytes up to 255 classes.

    Shape:
        (classes, H, W) -> (H, W), (H, W) of `position_dtype`
    """
    dtype = position_dtype(len(logits))
    if logits.device.type != "cpu":
        best, positions = logits.max(0)
        return best, positions.to(dtype)
    best = logits[0].clone()
    positions = torch.zeros(best.shape, dtype=dtype)
    for k in range(1, len(logits)):
        higher = logits[k] > best
        higher = higher.view(dtype) if dtype == torch.uint8 else higher.to(dtype)
        torch.maximum(positions, higher.mul_(k), out=positions)
        torch.maximum(best, logits[k], out=best)
    return best, positions


def class_values(
    positions: NDArray[np.unsignedinteger], values: Sequence[int]
) -> NDArray[np.unsignedinteger]:
    """Return the mask of positions: the value of each one's class, or the mask's nodata.

    Args:
        positions: (rows, width) uint8 or uint16, the largest number of which is no data.
        values: of the classes, by position.

    Returns:
        (rows, width) in the `mask_dtype` of the values; the same array if it is that already.
    """
    if list(values) == list(range(len(values))):
        return positions
    dtype = mask_dtype(values)
    table = np.full(np.iinfo(positions.dtype).max + 1, NODATA[dtype], dtype)
    table[: len(values)] = values
    mask = np.empty(positions.shape, dtype)
    for row, out in zip(positions, mask, strict=True):  # numpy widens indices to 8 bytes each
        table.take(row, out=out, mode="clip")
    return mask


def blend(
    tiles: Iterable[Tile], tiling: Tiling, classes: int, device: torch.device, clock: Clock
) -> Generator[NDArray[np.unsignedinteger], None, None]:
    """Yield the finished rows, one block for each row of tiles: positions of the best classes.

    Args:
        tiles: inferred tiles in row-major order, every one of `tiling`.
        tiling: the grid they belong to.
        classes: channels of the logits.
        device: where the logits are, and all arithmetic is done.
        clock: counts the seconds of "blend".

    Yields:
        (rows, width) uint8 up to 255 classes, else uint16; 255 or 65535 where there is no data.

    Raises:
        ModelError: if a logit is infinite or not a number.
    """
    dtype = position_dtype(classes)
    with out_of_memory(device, 1):
        blender = Blender(tiling, classes, device)
    for tile in tiles:
        with clock("blend"):
            if tile.column == 0:
                first, stop = tiling.y.finished(tile.row)
                shape = stop - first, tiling.x.size
                rows = torch.full(shape, NO_POSITION[dtype], dtype=dtype, device=device)
            blender.add(tile, rows)
            if tile.column < tiling.x.count - 1:
                continue
            finished = rows.cpu().numpy()
            if dtype == torch.int16:
                finished = finished.view(np.uint16)
            if not torch.isfinite(blender.total):
                raise ModelError(
                    f"the net gives infinite or undefined logits in rows {first} to {stop - 1}: "
                    "the model is broken, or the precision too low for it (use fp32)"
                )
        yield finished


class Blender:
    """The junctions that are still open while tiles arrive in row-major order.

    Args:
        tiling: the grid of the tiles.
        classes: channels of their logits.
        device: where they are.

    Attributes:
        total: sum of the best logits so far; NaN and infinity stick to it.
    """

    def __init__(self, tiling: Tiling, classes: int, device: torch.device) -> None:
        self.total = torch.zeros((), device=device)
        self._tiling = tiling
        self._up = taper(tiling.x.ramp).to(device)
        self._left: Tensor | None = None  # right junction of the tile before, (K, rows, ramp)
        # bottom junctions of the row of tiles above, (K, ramp, width)
        self._above = torch.zeros(classes, tiling.y.ramp, tiling.x.size, device=device)

    @torch.inference_mode()
    def add(self, tile: Tile, rows: Tensor) -> None:
        """Blend a tile with its left and upper neighbours; put the positions it completes in place.

        A tile without data adds nothing: every pixel of it, junctions included, is nodata.

        Args:
            tile: the next one; its logits are overwritten.
            rows: (rows, width) positions, those that the tile's row of tiles completes.
        """
        y, x, ramp = self._tiling.y, self._tiling.x, self._tiling.x.ramp
        left, self._left = self._left if tile.column else None, None
        if tile.logits is None:
            return
        (y0, y1), (x0, x1) = y.counted(tile.row), x.counted(tile.column)
        (_, y_done), (_, x_done) = y.finished(tile.row), x.finished(tile.column)
        top, side = y.start(tile.row), x.start(tile.column)
        logits = tile.logits[:, y0 - top : y1 - top, x0 - side : x1 - side]

        if left is not None:
            logits[:, :, :ramp] = torch.lerp(left, logits[:, :, :ramp], self._up)
        self._left = logits[:, :, x_done - x0 :]
        logits = logits[:, :, : x_done - x0]
        if tile.row > 0:
            above = self._above[:, :, x0:x_done]
            logits[:, :ramp] = torch.lerp(above, logits[:, :ramp], self._up[:, None])
        if tile.row < y.count - 1:
            self._above[:, :, x0:x_done] = logits[:, y_done - y0 :]

        best, positions = best_class(logits[:, : y_done - y0])
        self.total += best.sum()
        if tile.valid is not None:
            valid = tile.valid[y0 - top : y_done - top, x0 - side : x_done - side]
            positions.masked_fill_(~valid, NO_POSITION[positions.dtype])
        rows[:, x0:x_done] = positions
