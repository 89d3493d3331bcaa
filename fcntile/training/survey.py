"""What is where: one pass over rasters and labels, before anything is drawn from them.

The ground is cut into square *cells* of 64 px, whose label pixels are counted by value, and into
square *blocks* of several cells, which hold out ground for validation and add up band statistics.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from fcntile.raster.classes import UNLABELLED
from fcntile.training.dataset import Dataset, Grid

CELL = 64
BLOCKS = (512, 256, 128, CELL)
WANTED_BLOCKS = 20  # so that a fifth of them is a few
STRIP_PIXELS = 32 << 20  # at a time, if a row of blocks is larger


@dataclass(frozen=True)
class CellCounts:
    """Label pixels by cell and value, one entry for each of both that meet.

    Args:
        image: (n,) index of the raster.
        row: (n,) of the cell.
        column: (n,) of the cell.
        value: (n,) label value.
        pixels: (n,) how many, > 0.
    """

    image: NDArray[np.int32]
    row: NDArray[np.int32]
    column: NDArray[np.int32]
    value: NDArray[np.uint16]
    pixels: NDArray[np.int64]

    def __getitem__(self, chosen: NDArray[np.bool_]) -> "CellCounts":
        """Return some of the entries."""
        image, row, column = self.image[chosen], self.row[chosen], self.column[chosen]
        return CellCounts(image, row, column, self.value[chosen], self.pixels[chosen])


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of the valid pixels, (blocks,) and (blocks, bands).

    Blocks are added up by the rule of Chan, Golub and LeVeque (1979), which does not lose digits.
    """

    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    def total(self, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and standard deviation of the bands over some blocks, (bands,) each."""
        count, mean = self.count[chosen, None], self.mean[chosen]
        n = max(1.0, count.sum())
        overall = (count * mean).sum(0) / n
        squares = self.deviation[chosen].sum(0) + (count * (mean - overall) ** 2).sum(0)
        return overall, np.sqrt(squares / n)


@dataclass(frozen=True)
class Survey:
    """What a pass over the ground found.

    Args:
        side: of a block in px, a multiple of CELL.
        counts: label pixels by cell and value.
        blocks: (n, 3) image, row and column of every block with labels.
        moments: of the bands, for each of them.
    """

    side: int
    counts: CellCounts
    blocks: NDArray[np.int32]
    moments: Moments

    @property
    def values(self) -> list[int]:
        """Every label value that was found."""
        return [int(v) for v in np.unique(self.counts.value)]


def block_side(grids: Sequence[Grid]) -> int:
    """Return the side of a block in px: the largest that gives enough of them."""
    area = sum(grid.height * grid.width for grid in grids)
    return next((side for side in BLOCKS if area >= WANTED_BLOCKS * side**2), CELL)


def survey(dataset: Dataset) -> Survey:
    """Read all labels once, and the raster where they are.

    Memory is bounded by the rasters' width and by the number of cells with labels.

    Raises:
        InputError: if something cannot be read.
    """
    side = block_side(dataset.grids)
    counts: list[NDArray[np.int64]] = []  # rows of image, row, column, value, pixels
    blocks: list[tuple[int, int, int]] = []
    moments: list[tuple[float, NDArray[np.float64], NDArray[np.float64]]] = []
    for image, grid in enumerate(dataset.grids):
        for window in _windows(grid, side):
            if not dataset.has_labels(image, window):
                continue
            pixels, valid, values = dataset.read(image, window)
            for column in range(0, int(window.width), side):
                span = np.s_[:, column : column + side]
                here = values[span]
                if not (here != UNLABELLED).any():
                    continue
                place = image, int(window.row_off), int(window.col_off) + column
                counts.append(_count(place, here))
                moments.append(_moments(pixels[span][valid[span]]))
                blocks.append((image, place[1] // side, place[2] // side))
    table = np.concatenate([np.empty((0, 5), np.int64), *counts]).T
    n, mean, deviation = zip(*moments, strict=True) if moments else ((), (), ())
    return Survey(
        side,
        CellCounts(
            table[0].astype(np.int32),
            table[1].astype(np.int32),
            table[2].astype(np.int32),
            table[3].astype(np.uint16),
            table[4],
        ),
        np.array(blocks, np.int32).reshape(-1, 3),
        Moments(np.array(n), np.array(mean), np.array(deviation)),
    )


def _windows(grid: Grid, side: int) -> Iterator[Window]:
    """Yield windows of whole blocks over a raster, in rows: full width, unless that is too much."""
    width = max(side, STRIP_PIXELS // side // side * side)
    for row in range(0, grid.height, side):
        for column in range(0, grid.width, width):
            height = min(side, grid.height - row)
            yield Window(column, row, min(width, grid.width - column), height)


def _count(place: tuple[int, int, int], values: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Return (n, 5) rows of image, cell row, cell column, value, pixels of a block."""
    image, top, left = place
    found = np.flatnonzero(np.bincount(values.ravel(), minlength=UNLABELLED + 1))
    index = np.zeros(UNLABELLED + 1, np.int64)
    index[found] = np.arange(len(found))
    rows = np.arange(values.shape[0])[:, None] // CELL
    columns = np.arange(values.shape[1]) // CELL
    across = columns[-1] + 1
    key = (rows * across + columns) * len(found) + index[values]
    pixels = np.bincount(key.ravel())
    met = np.flatnonzero(pixels)
    cell, value = met // len(found), found[met % len(found)]
    row, column = top // CELL + cell // across, left // CELL + cell % across
    table = np.stack([np.full(len(met), image), row, column, value, pixels[met]], 1)
    return np.asarray(table[value != UNLABELLED])


def _moments(
    pixels: NDArray[np.generic],
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Return count, mean and squared deviations of (n, bands) pixels."""
    values = pixels.astype(np.float64)
    mean = values.mean(0)
    return float(len(values)), mean, ((values - mean) ** 2).sum(0)
