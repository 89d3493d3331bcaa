"""Hold out ground for validation, and draw windows from the rest."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from fcntile.raster.classes import UNKNOWN
from fcntile.training.survey import CELL, CellCounts, Survey

TRIALS = 200  # random splits, of which the most even one is taken
FILES = 10  # with so many rasters, whole ones are held out


@dataclass(frozen=True)
class Split:
    """Which blocks of ground are for training and which for validation.

    Args:
        side: of a block in px.
        blocks: (n, 3) image, row and column of every block with labels.
        held_out: (n,) bool, True for validation.
    """

    side: int
    blocks: NDArray[np.int32]
    held_out: NDArray[np.bool_]

    def windows(self) -> list[tuple[int, Window]]:
        """Return image and window of each block held out."""
        side = self.side
        return [
            (int(image), Window(int(column) * side, int(row) * side, side, side))
            for image, row, column in self.blocks[self.held_out]
        ]

    def masks(self, images: int) -> list[NDArray[np.bool_] | None]:
        """Return for each image which (row, column) of blocks are held out; None if none is."""
        masks: list[NDArray[np.bool_] | None] = []
        for image in range(images):
            here = self.blocks[(self.blocks[:, 0] == image) & self.held_out][:, 1:]
            if not len(here):
                masks.append(None)
                continue
            mask = np.zeros(here.max(0) + 1, bool)
            mask[here[:, 0], here[:, 1]] = True
            masks.append(mask)
        return masks

    def of(self, counts: CellCounts) -> NDArray[np.bool_]:
        """Return which entries of `counts` lie in blocks held out."""
        cells = self.side // CELL
        keys = _keys(counts.image, counts.row // cells, counts.column // cells)
        return np.isin(keys, _keys(*self.blocks[self.held_out].T))


def _keys(*parts: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return one number for each image, row and column, of 21 bits each."""
    image, row, column = (part.astype(np.int64) for part in parts)
    return (image << 42) | (row << 21) | column


def split_by_files(found: Survey, first: int) -> Split:
    """Return the split that holds out every raster from index `first` on."""
    return Split(found.side, found.blocks, found.blocks[:, 0] >= first)


def split_by_ground(
    found: Survey, table: NDArray[np.uint16], share: float, rng: np.random.Generator
) -> Split:
    """Return a split that holds out about `share` of the labelled pixels of every class.

    What is held out is whole rasters if there are many, else blocks of ground; never single
    windows, whose neighbours the net would have seen. Of many random splits the most even one is
    taken.

    Args:
        found: the survey.
        table: from label values to positions in the class table.
        share: 0 to hold out nothing.
        rng: where chance comes from.
    """
    of_file = len(np.unique(found.blocks[:, 0])) >= FILES
    units = found.blocks[:, :1] if of_file else found.blocks
    names, unit = np.unique(_keys(*_three(units)), return_inverse=True)
    cells = found.side // CELL
    counts = found.counts
    places = counts.image, counts.row // cells, counts.column // cells
    keys = _keys(*(_three(places[0][:, None]) if of_file else places))
    classes = table[counts.value]
    known = classes < UNKNOWN
    areas = np.zeros((len(names), int(classes[known].max(initial=0)) + 1))
    np.add.at(areas, (np.searchsorted(names, keys[known]), classes[known]), counts.pixels[known])
    chosen = np.zeros(len(names), bool)
    if share and len(names) > 1:
        chosen = _most_even(areas, share, rng)
    return Split(found.side, found.blocks, chosen[unit])


def _three(units: NDArray[np.int32]) -> tuple[NDArray[np.int32], ...]:
    zeros = np.zeros(len(units), np.int32)
    return tuple(units.T) if units.shape[1] == 3 else (units[:, 0], zeros, zeros)


def _most_even(
    areas: NDArray[np.float64], share: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return which units to hold out, by their (units, classes) labelled pixels."""
    total = areas.sum(0)
    present = total > 0
    best, least = np.zeros(len(areas), bool), np.inf
    for _ in range(TRIALS):
        order = rng.permutation(len(areas))
        reached = areas[order].sum(1).cumsum() / total.sum()
        count = min(int(np.searchsorted(reached, share)) + 1, len(areas) - 1)
        chosen = np.zeros(len(areas), bool)
        chosen[order[:count]] = True
        shares = areas[chosen].sum(0)[present] / total[present]
        if (error := np.abs(shares - share).mean()) < least:
            best, least = chosen, error
    return best


class Sampler:
    """Draws places for training windows, only where labels are.

    Args:
        counts: of the training ground.
        positions: (n,) class of each entry.
        balance: share of windows drawn by class, each class alike; the others by area.
    """

    def __init__(self, counts: CellCounts, positions: NDArray[np.uint16], balance: float) -> None:
        order = np.argsort(positions, kind="stable")
        self._balance = balance
        self._image, self._row, self._column = (
            array[order] for array in (counts.image, counts.row, counts.column)
        )
        self._until = counts.pixels[order].cumsum()
        _, first = np.unique(positions[order], return_index=True)
        last = np.append(first[1:], len(order)) - 1
        # first and one past the last labelled pixel of each class, counted through
        self._ranges = np.stack(
            [self._until[first] - counts.pixels[order][first], self._until[last]], 1
        )

    def draw(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """Return image, row and column of a pixel near which labels are."""
        low, high = 0, self._until[-1]
        if rng.random() < self._balance:
            low, high = self._ranges[rng.integers(len(self._ranges))]
        i = np.searchsorted(self._until, rng.integers(low, high), side="right")
        row, column = rng.integers(CELL, size=2)
        return (
            int(self._image[i]),
            int(self._row[i]) * CELL + int(row),
            int(self._column[i]) * CELL + int(column),
        )
