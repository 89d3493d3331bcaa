"""Add up, row by row, what the scores of a mask follow from."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fcntile.training.boundary import boundary_matches
from fcntile.training.metrics import Positions, confusion_matrix, sums


class Counts:
    """What has been counted so far.

    Args:
        classes: number of classes.
        tolerance: px of the boundary F1, None without it.
        side: of blocks of ground in px, None without them.
        ignored: positions of classes that no label has, and that get no scores.

    Attributes:
        confusion: (classes, classes) pixels, rows are labels.
        boundary: (4, classes) as `boundary_matches` has them.
        total: all pixels.
        mask_nodata: those without a class in the mask.
    """

    def __init__(
        self,
        classes: int,
        tolerance: float | None = None,
        side: int | None = None,
        ignored: Sequence[int] = (),
    ) -> None:
        self.confusion = np.zeros((classes, classes), np.int64)
        self.boundary = np.zeros((4, classes), np.int64)
        self.total = self.mask_nodata = 0
        self._classes, self._tolerance, self._side = classes, tolerance, side
        self._ignored = list(ignored)
        self._blocks: dict[tuple[int, int, int], NDArray[np.int64]] = {}  # by mask, row, column

    @property
    def unlabelled(self) -> int:
        """Pixels that have a class in the mask but none in the labels."""
        return self.total - self.mask_nodata - int(self.confusion.sum())

    def add(self, mask: int, row: int, positions: Positions, core: slice) -> None:
        """Count rows.

        Args:
            mask: its number.
            row: of the mask, where the core starts.
            positions: (2, rows, width) positions of classes in mask and labels, with margins.
            core: the rows to count.
        """
        ids, labels = positions[:, core]
        self.total += ids.size
        self.mask_nodata += int(np.count_nonzero(ids >= self._classes))
        if self._side is None:
            self.confusion += confusion_matrix(labels, ids, self._classes)
        else:
            for (down, right), piece in _cut(row, ids.shape, self._side):
                confusion = confusion_matrix(labels[piece], ids[piece], self._classes)
                self.confusion += confusion
                block = mask, down, right
                self._blocks[block] = self._blocks.get(block, 0) + self._sums(confusion)
        if self._tolerance is not None:
            self.boundary += boundary_matches(
                positions[1], positions[0], self._classes, self._tolerance, (core, slice(None))
            )
            self.boundary[:, self._ignored] = 0

    @property
    def sums(self) -> NDArray[np.int64]:
        """(3, classes) hits, pixels by labels and pixels by mask."""
        return self._sums(self.confusion)

    def _sums(self, confusion: NDArray[np.int64]) -> NDArray[np.int64]:
        counted = sums(confusion)
        counted[2, self._ignored] = 0  # 0 / 0 is left out of means
        return counted

    @property
    def blocks(self) -> NDArray[np.int64]:
        """(3, n, classes) sums of the blocks of ground that have pixels to compare."""
        blocks = [block for _, block in sorted(self._blocks.items()) if block.any()]
        return np.stack(blocks, axis=1)


def _cut(
    row: int, shape: tuple[int, int], side: int
) -> Iterator[tuple[tuple[int, int], tuple[slice, slice]]]:
    """Yield the row and column of each block of ground, and its part of rows from `row` on."""
    height, width = shape
    for down in range(row // side, (row + height - 1) // side + 1):
        rows = slice(max(0, down * side - row), (down + 1) * side - row)
        for right in range((width - 1) // side + 1):
            yield (down, right), (rows, slice(right * side, (right + 1) * side))
