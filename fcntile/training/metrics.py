"""How good a mask is: counts that add up over blocks of ground, and the scores they give.

Everything follows from the confusion matrix n, where n[i, j] counts the pixels of class i in the
labels that the mask has as class j. Most scores need only its diagonal (the *hits*), its row sums
(pixels by *labels*) and its column sums (pixels by *mask*).

References: Long et al. 2015 (accuracies and IoU), Cohen 1960 (kappa), Csurka et al. 2013 (boundary
F1), Efron 1979 (bootstrap).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.integer[Any]]  # of classes in the class table; others do not count
Floats = NDArray[np.float64]
TOTALS = ("miou", "pixel_accuracy", "mean_accuracy", "fw_iou", "kappa")
EVERYTHING = (slice(None), slice(None))


def confusion_matrix(labels: Positions, ids: Positions, classes: int) -> NDArray[np.int64]:
    """Return how often each class of the labels meets each class of the mask.

    Args:
        labels: positions of classes from 0, of any shape.
        ids: the same of the mask. Pixels where either is >= `classes` do not count.
        classes: number of classes.

    Returns:
        (classes, classes), rows are labels.

    >>> confusion_matrix(np.array([0, 0, 1, 65535]), np.array([0, 1, 1, 1]), 2)
    array([[1, 1],
           [0, 1]])
    """
    sides = classes + 1  # the last takes what does not count: cheaper than to pick the rest out
    cell = np.minimum(labels, classes).astype(np.intp)
    cell *= sides
    cell += np.minimum(ids, classes)
    counts = np.bincount(cell.ravel(), minlength=sides * sides).reshape(sides, sides)
    return counts[:classes, :classes].astype(np.int64)


def sums(confusion: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (3, classes): hits, pixels by labels and pixels by mask of a confusion matrix."""
    return np.stack([confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)])


@dataclass(frozen=True)
class Scores:
    """Scores of masks, each from 0 to 1 (kappa from -1); NaN where they are 0 / 0.

    A class that neither labels nor mask have is left out of means.

    Args:
        pixel_accuracy: (...,) share of pixels that are right.
        mean_accuracy: (...,) mean of the classes' recall.
        miou: (...,) mean of the classes' IoU.
        fw_iou: (...,) mean of the classes' IoU, weighted by their pixels in the labels.
        kappa: (...,) Cohen's: agreement beyond that of chance.
        iou: (..., classes) intersection over union.
        f1: (..., classes) harmonic mean of precision and recall; also called Dice.
        precision: (..., classes) share of the mask's pixels that are right.
        recall: (..., classes) share of the labels' pixels that were found.
        pixels: (..., classes) pixels in the labels.
    """

    pixel_accuracy: Floats
    mean_accuracy: Floats
    miou: Floats
    fw_iou: Floats
    kappa: Floats
    iou: Floats
    f1: Floats
    precision: Floats
    recall: Floats
    pixels: NDArray[np.int64]

    @classmethod
    def of(cls, confusion: NDArray[np.int64]) -> "Scores":
        """Return the scores of a (classes, classes) confusion matrix."""
        return cls.of_sums(*sums(confusion))

    @classmethod
    def of_sums(
        cls, hits: NDArray[np.int64], labels: NDArray[np.int64], mask: NDArray[np.int64]
    ) -> "Scores":
        """Return the scores of the diagonals, row and column sums of confusion matrices.

        Args:
            hits: (..., classes) pixels of each class in both.
            labels: (..., classes) pixels of each class in the labels.
            mask: (..., classes) pixels of each class in the mask.
        """
        count = labels.sum(axis=-1)
        iou = _ratio(hits, labels + mask - hits)
        recall = _ratio(hits, labels)
        # 1 - errors / (errors expected by chance): neither loses digits where both are few
        by_chance = (labels.astype(np.float64) * (count[..., None] - mask)).sum(axis=-1)
        errors = count - hits.sum(axis=-1)
        return cls(
            pixel_accuracy=_ratio(hits.sum(axis=-1), count),
            mean_accuracy=mean(recall),
            miou=mean(iou),
            fw_iou=_ratio(np.nansum(labels * iou, axis=-1), count),
            kappa=1 - _ratio(errors * count.astype(np.float64), by_chance),
            iou=iou,
            f1=_ratio(2 * hits, labels + mask),
            precision=_ratio(hits, mask),
            recall=recall,
            pixels=labels,
        )


def mean(scores: Floats) -> Floats:
    """Return the mean over the classes (the last axis) that have a score; NaN if none has."""
    return _ratio(np.nansum(scores, axis=-1), (~np.isnan(scores)).sum(axis=-1))


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Floats = np.true_divide(numerator, denominator)
    return ratio


def boundary_margin(tolerance: float) -> int:
    """Return how many px beyond a block `boundary_matches` must see to be exact on the block."""
    return int(tolerance) + 1  # whether a pixel at that distance is boundary, the next one says


def boundary_matches(
    labels: Positions,
    ids: Positions,
    classes: int,
    tolerance: float,
    core: tuple[slice, slice] = EVERYTHING,
) -> NDArray[np.int64]:
    """Return how many boundary pixels have one of the same class nearby in the other array.

    A boundary pixel has one of its 4 neighbours in another class. Pixels that do not count, in
    either array, belong to no class, and neither they nor the array's rim make a boundary.

    Args:
        labels: (H, W) positions of classes from 0.
        ids: (H, W) the same of the mask. Pixels where either is >= `classes` do not count.
        classes: number of classes.
        tolerance: px between the centres of pixels that match, Euclidean, >= 0.
        core: rows and columns whose pixels are counted; the rest is there to be seen. It must
            reach `boundary_margin(tolerance)` further, or to the raster's rim.

    Returns:
        (4, classes): boundary pixels of the mask, those matched in the labels, boundary pixels of
        the labels, those matched in the mask.
    """
    is_out = (labels >= classes) | (ids >= classes)
    edges = [_edges(np.where(is_out, classes, a), classes) for a in (ids, labels)]
    near = _disc(tolerance)
    return np.concatenate(
        [
            _count_matches(edges[0], edges[1], classes, near, core),
            _count_matches(edges[1], edges[0], classes, near, core),
        ]
    )


def _edges(positions: Positions, classes: int) -> Positions:
    """Return the class of boundary pixels, and `classes` elsewhere."""
    is_edge = np.zeros(positions.shape, bool)
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        a, b = positions[here], positions[there]
        differ = (a != b) & (a < classes) & (b < classes)
        is_edge[here] |= differ
        is_edge[there] |= differ
    return np.where(is_edge, positions, classes)


def _disc(radius: float) -> NDArray[np.int64]:
    """Return (n, 2) offsets no longer than `radius`, the short ones first: most match soon."""
    reach = int(radius)
    offsets = np.indices((2 * reach + 1, 2 * reach + 1)).reshape(2, -1).T - reach
    squares = (offsets**2).sum(axis=1)
    order = np.argsort(squares, kind="stable")
    is_near = squares[order] <= radius**2
    near: NDArray[np.int64] = offsets[order[is_near]]
    return near


def _count_matches(
    edges: Positions,
    others: Positions,
    classes: int,
    near: NDArray[np.int64],
    core: tuple[slice, slice],
) -> NDArray[np.int64]:
    """Return (2, classes): boundary pixels in the core, and those with one of `others` near.

    Boundaries are thin, so trying the offsets one by one on what has no match yet is faster than
    a distance transform for each class, and exact.
    """
    starts = [part.indices(size)[0] for part, size in zip(core, edges.shape, strict=True)]
    rows, columns = np.nonzero(edges[core] < classes)
    rows, columns = rows + starts[0], columns + starts[1]
    kind = edges[rows, columns]
    found = np.bincount(kind, minlength=classes)
    reach = int(near.max(initial=0))
    padded = np.pad(others, reach, constant_values=classes)
    width = padded.shape[1]
    place, padded = (rows + reach) * width + columns + reach, padded.ravel()
    for down, right in near:
        is_alone = padded[place + (down * width + right)] != kind
        place, kind = place[is_alone], kind[is_alone]
    return np.stack([found, found - np.bincount(kind, minlength=classes)])


def boundary_f1(matches: NDArray[np.int64]) -> Floats:
    """Return the F1 of each class from the counts of `boundary_matches`.

    Returns:
        (classes,): NaN for a class without a boundary in either, 0 without one in the other.
    """
    mask, mask_matched, labels, labels_matched = matches.astype(np.float64)
    # 2PR / (P + R), multiplied out; it is 0 / 0 where nothing is matched
    f1 = _ratio(2 * mask_matched * labels_matched, mask_matched * labels + labels_matched * mask)
    return np.where(mask + labels > 0, np.nan_to_num(f1, nan=0.0), np.nan)


class Counts:
    """What has been counted so far.

    Args:
        classes: number of classes.
        tolerance: px of the boundary F1, None without it.
        side: of blocks of ground in px, None without them.

    Attributes:
        confusion: (classes, classes) pixels, rows are labels.
        boundary: (4, classes) as `boundary_matches` has them.
        total: all pixels.
        mask_nodata: those without a class in the mask.
    """

    def __init__(self, classes: int, tolerance: float | None, side: int | None) -> None:
        self.confusion = np.zeros((classes, classes), np.int64)
        self.boundary = np.zeros((4, classes), np.int64)
        self.total = self.mask_nodata = 0
        self._classes, self._tolerance, self._side = classes, tolerance, side
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
                self._blocks[block] = self._blocks.get(block, 0) + sums(confusion)
        if self._tolerance is not None:
            self.boundary += boundary_matches(
                positions[1], positions[0], self._classes, self._tolerance, (core, slice(None))
            )

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


def bootstrap(
    blocks: NDArray[np.int64], rounds: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return 95 % intervals of the totals, as they vary with the blocks of ground one has.

    Neighbouring pixels are not independent, blocks nearly are: so blocks are drawn, with
    replacement, as many as there are, and the percentiles 2.5 and 97.5 of their scores taken.

    Args:
        blocks: (3, n, classes) `sums` of n > 0 blocks of ground.
        rounds: how often to draw, > 0.
        seed: of the random numbers; the same seed gives the same intervals.

    Returns:
        Low and high end of each of `TOTALS`; rounds in which a score is NaN are left out.
    """
    random, n = np.random.default_rng(seed), blocks.shape[1]
    drawn = [blocks[:, random.integers(n, size=n)].sum(axis=1) for _ in range(rounds)]
    scores = Scores.of_sums(*np.stack(drawn, axis=1))  # of (rounds, classes) sums
    return {name: _interval(getattr(scores, name)) for name in TOTALS}


def _interval(scores: Floats) -> tuple[float, float]:
    scores = scores[~np.isnan(scores)]
    if not len(scores):
        return float("nan"), float("nan")
    low, high = np.percentile(scores, (2.5, 97.5))
    return float(low), float(high)
