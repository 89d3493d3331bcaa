"""A mask and its labels side by side, on the mask's grid."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from fcntile.raster.classes import UNKNOWN, UNLABELLED, Class, check_values, lookup
from fcntile.raster.gdal import open_raster
from fcntile.raster.labels import Labels, RasterLabels
from fcntile.raster.sources import LabelSource, Pair

ROWS, PIXELS = 512, 2 << 20  # read at a time: so many rows, fewer if that is too many pixels

Read = Callable[[Window], NDArray[np.uint16]]


@contextmanager
def open_pair(pair: Pair, source: LabelSource) -> Iterator[tuple[Labels, Labels, tuple[int, int]]]:
    """Open a mask and its labels on the mask's grid; the third is its height and width."""
    with (
        open_raster(pair.image) as grid,
        closing(RasterLabels(pair.image, like=grid, what="mask")) as mask,
        closing(source.open(pair.labels, like=grid)) as labels,
    ):
        yield mask, labels, grid.shape


def _row_windows(shape: tuple[int, int]) -> Iterator[Window]:
    height, width = shape
    step = max(1, min(ROWS, PIXELS // width))
    for row in range(0, height, step):
        yield Window(0, row, width, min(step, height - row))


def found_values(pairs: Sequence[Pair], source: LabelSource) -> list[int]:
    """Return the values in masks and labels; a pass over all of them."""
    found: set[int] = set()
    for pair in pairs:
        with open_pair(pair, source) as (mask, labels, shape):
            found |= _values(mask, shape) | _values(labels, shape)
    return sorted(found)


def _values(labels: Labels, shape: tuple[int, int]) -> set[int]:
    seen = np.zeros(UNLABELLED + 1, bool)
    for window in _row_windows(shape):
        seen[labels.read(window)] = True
    return set(np.flatnonzero(seen[:UNKNOWN]).tolist())


def reader(
    pair: Pair,
    mask: Labels,
    labels: Labels,
    shape: tuple[int, int],
    classes: Sequence[Class],
    ignore: Iterable[int],
) -> Read:
    """Return what reads a window of mask and labels as positions in the class table.

    It raises InputError, with all values of the file, at one that is no class. An ignored value
    still means its class in a mask: it is no label, that is all.
    """
    mask_table = lookup(classes, set(ignore).difference(*(c.values for c in classes)))
    sources = [
        (pair.image, mask, mask_table),
        (pair.labels, labels, lookup(classes, ignore)),
    ]

    def read(window: Window) -> NDArray[np.uint16]:
        found = np.stack([table[file.read(window)] for _, file, table in sources])
        for (path, file, table), positions in zip(sources, found, strict=True):
            if (positions == UNKNOWN).any():
                check_values(_values(file, shape), table, path)
        return found

    return read


def read_rows(
    read: Read, shape: tuple[int, int], margin: int
) -> Iterator[tuple[int, NDArray[np.uint16], slice]]:
    """Yield rows from top to bottom, each read once.

    Args:
        read: gives (2, rows, width) of a window.
        shape: of the raster.
        margin: rows to have above and below those that are new.

    Yields:
        The first new row, (2, rows, width) rows, and the slice of the new ones.
    """
    height, width = shape
    rows = np.empty((2, 0, width), np.uint16)
    top = start = 0  # the raster's row where `rows` start, and the first one not yielded yet
    for window in _row_windows(shape):
        rows = np.concatenate([rows, read(window)], axis=1)
        bottom = top + rows.shape[1]
        stop = bottom if bottom == height else max(start, bottom - margin)
        if stop > start:
            yield start, rows, slice(start - top, stop - top)
        kept = max(0, stop - margin)
        rows, top, start = rows[:, kept - top :].copy(), kept, stop
