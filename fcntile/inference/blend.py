"""Blend the logits of overlapping tiles and reduce them to classes, on the device.

Where two tiles meet, the left (upper) one's weight falls from 1 to 0 as the right (lower) one's
rises: a raised cosine, `up(i) = 0.5 - 0.5 cos(pi (i + 0.5) / ramp)`, and `1 - up(i)` for the other.
Written as an interpolation, `left + up * (right - left)`, the two weights sum to 1 by construction:
no weight sum, no division, and two tiles that agree to the bit keep their logits to the bit.

Only what is still open is kept: the right junction of the tile before, and the bottom junctions of
the tile row above. Everything else is final as soon as its tile arrives, and leaves as what is
wanted of it. A window inside the raster gets the very logits that it has in the whole: the tiles
above and left of it that reach in are blended too. Or none is above it: a window may begin where a
junction ends, and another end where it begins. Then each leaves its half of it, to be joined.
"""

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from torch import Tensor

from fcntile.errors import ModelError
from fcntile.inference.devices import out_of_memory
from fcntile.inference.engine import Tile
from fcntile.inference.products import Product, Threshold, reduce
from fcntile.inference.stages import Clock
from fcntile.inference.tiling import Block, Tiling
from fcntile.inference.transfer import Transfer

EMPTY = 256  # rows without data that are given at a time
Rows = list[NDArray[np.generic]]  # (bands, rows, width) of each product; int16 positions as uint16
Arriving = Callable[[], Rows]  # waits for rows that are on their way from the device


@dataclass(frozen=True)
class Half:
    """What one of two rows of tiles has of the junction between them.

    Args:
        logits: (classes, ramp, width) float32, anything where no pixel is wanted; None if none is.
        wanted: (ramp, width) bool, which pixels the mask is to have; None in the upper row's half.
    """

    logits: NDArray[np.float32] | None
    wanted: NDArray[np.bool_] | None = None


@dataclass
class Halves:
    """What a window leaves of the junctions around it, if it begins or ends at one.

    Args:
        above: once its first row of tiles is blended.
        below: once its last one is.
    """

    above: Half | None = None
    below: Half | None = None


def taper(ramp: int) -> Tensor:
    """Return the rising half of the taper.

    Shape:
        (ramp,) float32, from just above 0 to just below 1
    """
    i = torch.arange(ramp, dtype=torch.float64)
    return (0.5 - 0.5 * torch.cos(torch.pi * (i + 0.5) / ramp)).float()


def blend(
    tiles: Iterable[Tile],
    tiling: Tiling,
    block: Block,
    products: Sequence[Product],
    device: torch.device,
    clock: Clock,
    threshold: Threshold | None = None,
    halves: Halves | None = None,
) -> Generator[Arriving, None, None]:
    """Yield the finished rows of a window from top to bottom, those of one row of tiles at a time.

    They are waited for by who needs them, and not here, where the device gets its work.

    Args:
        tiles: inferred tiles in row-major order, every one of `block`.
        tiling: the grid they belong to.
        block: which of them, and the window they complete.
        products: what is wanted of the logits.
        device: where the logits are, and all arithmetic is done.
        clock: counts the seconds of "blend".
        threshold: of one class in the mask.
        halves: where to leave the halves of the junctions around the window.

    Yields:
        What returns the rows, or raises ModelError if a logit in them is infinite or not a number.
    """
    blender = Blender(tiling, block, products, device, threshold, shares=halves is not None)
    for tile in tiles:
        with clock("blend"), out_of_memory(device, "blending", "use a smaller --tile"):
            blender.add(tile)
            if tile.column < block.columns[-1]:
                continue
            rows = blender.finish(tile.row)
            if halves:
                blender.share(tile.row, halves)
        if rows:
            yield rows


def empty_rows(products: Sequence[Product], window: Window) -> Generator[Rows, None, None]:
    """Yield the rows of a window without any data."""
    for row in range(0, int(window.height), EMPTY):
        yield without_data(products, (min(EMPTY, int(window.height) - row), int(window.width)))


def without_data(products: Sequence[Product], shape: tuple[int, int]) -> Rows:
    """Return (bands, *shape) of each product, nothing but nodata."""
    return [to_numpy(torch.full((p.bands, *shape), p.nodata, dtype=p.dtype)) for p in products]


def check_finite(total: float, where: str) -> None:
    """Refuse logits of which a sum is not finite.

    Raises:
        ModelError: if it is infinite or not a number.
    """
    if not math.isfinite(total):
        raise ModelError(
            f"the net gives infinite or undefined logits {where}: the model is broken, or the "
            "precision too low for it (use fp32)"
        )


def _on_host(logits: Tensor | None) -> NDArray[np.float32] | None:
    return None if logits is None else logits.cpu().numpy()


def to_numpy(rows: Tensor) -> NDArray[np.generic]:
    """Return rows on the host, int16 positions as uint16."""
    return _unsigned(rows.cpu().numpy())


def _unsigned(rows: NDArray[np.generic]) -> NDArray[np.generic]:
    return rows.view(np.uint16) if rows.dtype == np.int16 else rows


class Blender:
    """The junctions that are still open while tiles arrive in row-major order.

    Args:
        tiling: the grid of the tiles.
        block: which of them, and the window they complete.
        products: what is wanted of the logits.
        device: where the logits are.
        threshold: of one class in the mask.
        shares: whether the halves of the junctions around the window are wanted.
    """

    def __init__(
        self,
        tiling: Tiling,
        block: Block,
        products: Sequence[Product],
        device: torch.device,
        threshold: Threshold | None = None,
        *,
        shares: bool = False,
    ) -> None:
        self._tiling, self._block, self._device = tiling, block, device
        self._products, self._threshold = products, threshold
        self._transfer = Transfer(device)
        self._total = torch.zeros((), device=device)  # NaN and infinity stick to it
        self._up = {axis.ramp: taper(axis.ramp).to(device) for axis in (tiling.y, tiling.x)}
        self._left: Tensor | None = None  # right junction of the tile before, (K, rows, ramp)
        self._above: Tensor | None = None  # bottom junctions of the row above, (K, ramp, width)
        self._rows: list[Tensor] = []  # finished ones of this row of tiles
        y, first, last = tiling.y, block.rows[0], block.rows[-1]
        (top, bottom), (left, right) = block.window.toranges()
        self._shares_above = shares and first > 0 and y.junction(first)[1] == top
        self._shares_below = shares and last < y.count - 1 and y.junction(last + 1)[0] == bottom
        self._top: Tensor | None = None  # junctions above the first row, if they are shared
        shape = (y.ramp, right - left) if self._shares_above else (0, 0)
        self._top_wanted = torch.zeros(shape, dtype=torch.bool, device=device)

    def _window(self, row: int) -> tuple[slice, slice]:
        """Return the rows and columns of the window that a row of tiles completes."""
        (top, bottom), (left, right) = self._block.window.toranges()
        first, stop = self._tiling.y.finished(row)
        first = max(first, top)
        return slice(first, max(first, min(stop, bottom))), slice(left, right)

    @torch.inference_mode()
    def add(self, tile: Tile) -> None:
        """Blend a tile with its left and upper neighbours; put what it completes in place.

        A tile without data adds nothing: every pixel of it, junctions included, is nodata.

        Args:
            tile: the next one; its logits are overwritten.
        """
        y, x = self._tiling.y, self._tiling.x
        rows, columns = self._window(tile.row)
        if tile.column == self._block.columns[0]:
            self._begin_row(rows.stop - rows.start, columns.stop - columns.start)
        before, self._left = self._left, None
        if tile.logits is None:
            return
        (y0, y1), (x0, x1) = y.counted(tile.row), x.counted(tile.column)
        top, left = y.start(tile.row), x.start(tile.column)
        x_done = x.finished(tile.column)[1]
        logits = tile.logits[:, y0 - top : y1 - top, x0 - left : x1 - left]  # those with weight

        if before is not None:
            junction = logits[:, :, : x.ramp]
            torch.lerp(before, junction, self._up[x.ramp], out=junction)
        self._left = logits[:, :, x_done - x0 :]
        first, stop = max(x0, columns.start), min(x_done, columns.stop)
        if first >= stop:
            return

        logits = logits[:, :, first - x0 : stop - x0]  # (K, y1 - y0, stop - first)
        wanted = tile.wanted  # (y1 - y0, stop - first) from here on
        if wanted is not None:
            wanted = wanted[y0 - top : y1 - top, first - left : stop - left]
        here = slice(first - columns.start, stop - columns.start)  # in the window
        self._blend_above(tile.row, logits, wanted, here)
        if rows.start < rows.stop:
            done = slice(rows.start - y0, rows.stop - y0)
            self._put(logits[:, done], None if wanted is None else wanted[done], here)

    def _begin_row(self, height: int, width: int) -> None:
        """Make room for what a row of tiles completes: no data, until it is there."""
        self._left = None
        self._rows = [
            torch.full((p.bands, height, width), p.nodata, dtype=p.dtype, device=self._device)
            for p in self._products
        ]

    def _blend_above(self, row: int, logits: Tensor, wanted: Tensor | None, here: slice) -> None:
        """Blend a tile with those above it, and keep its side of the junctions below it.

        Args:
            row: of tiles.
            logits: (K, rows, columns) of the tile's pixels with weight; overwritten.
            wanted: (rows, columns) bool, which of them the mask is to have; None if all.
            here: columns of the window.
        """
        y, width = self._tiling.y, int(self._block.window.width)
        if self._above is None:
            self._above = torch.zeros(len(logits), y.ramp, width, device=self._device)
        if row > self._block.rows[0]:
            junction, up = logits[:, : y.ramp], self._up[y.ramp][:, None]
            torch.lerp(self._above[:, :, here], junction, up, out=junction)
        elif self._shares_above:
            if self._top is None:
                self._top = torch.zeros_like(self._above)
            self._top[:, :, here] = logits[:, : y.ramp]
            self._top_wanted[:, here] = True if wanted is None else wanted[: y.ramp]
        if row < self._block.rows[-1] or self._shares_below:
            self._above[:, :, here] = logits[:, y.finished(row)[1] - y.counted(row)[0] :]

    def _put(self, logits: Tensor, wanted: Tensor | None, here: slice) -> None:
        """Reduce finished logits to what is wanted of them, and put that in its columns.

        Args:
            logits: (K, rows, columns)
            wanted: (rows, columns) bool, which of them the mask is to have; None if all.
            here: columns of the window.
        """
        best, made = reduce(logits, self._products, self._threshold)
        self._total = self._total + best.sum()  # not in place: the one before may be on its way
        empty = None if wanted is None else ~wanted
        for rows, values, product in zip(self._rows, made, self._products, strict=True):
            rows[:, :, here] = values
            if empty is not None:
                rows[:, :, here].masked_fill_(empty, product.nodata)

    def finish(self, row: int) -> Arriving | None:
        """Send what a row of tiles completes on its way to the host; None if that is nothing."""
        wanted, _ = self._window(row)
        if wanted.start == wanted.stop:
            return None
        copies = self._transfer.to_host([*self._rows, self._total])

        def arrive() -> Rows:
            *rows, total = copies()
            check_finite(float(total), f"in rows {wanted.start} to {wanted.stop - 1}")
            return [_unsigned(array) for array in rows]

        return arrive

    def share(self, row: int, halves: Halves) -> None:
        """Leave what a finished row of tiles has of the junctions around the window."""
        if self._shares_above and row == self._block.rows[0]:
            halves.above = Half(_on_host(self._top), self._top_wanted.cpu().numpy())
            self._top = None
        if self._shares_below and row == self._block.rows[-1]:
            halves.below = Half(_on_host(self._above))
