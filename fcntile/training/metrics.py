"""How good a mask is: counts that add up over blocks of ground, and the scores they give.

Everything follows from the confusion matrix n, where n[i, j] counts the pixels of class i in the
labels that the mask has as class j. Most scores need only its diagonal (the *hits*), its row sums
(pixels by *labels*) and its column sums (pixels by *mask*).

References: Long et al. 2015 (accuracies and IoU), Cohen 1960 (kappa), Efron 1979
(bootstrap).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.integer[Any]]  # of classes in the class table; others do not count
Floats = NDArray[np.float64]
TOTALS = ("miou", "pixel_accuracy", "mean_accuracy", "fw_iou", "kappa")


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
        iou = ratio(hits, labels + mask - hits)
        recall = ratio(hits, labels)
        # 1 - errors / (errors expected by chance): neither loses digits where both are few
        by_chance = (labels.astype(np.float64) * (count[..., None] - mask)).sum(axis=-1)
        errors = count - hits.sum(axis=-1)
        return cls(
            pixel_accuracy=ratio(hits.sum(axis=-1), count),
            mean_accuracy=mean(recall),
            miou=mean(iou),
            fw_iou=ratio(np.nansum(labels * iou, axis=-1), count),
            kappa=1 - ratio(errors * count.astype(np.float64), by_chance),
            iou=iou,
            f1=ratio(2 * hits, labels + mask),
            precision=ratio(hits, mask),
            recall=recall,
            pixels=labels,
        )


def mean(scores: Floats) -> Floats:
    """Return the mean over the classes (the last axis) that have a score; NaN if none has."""
    return ratio(np.nansum(scores, axis=-1), (~np.isnan(scores)).sum(axis=-1))


def ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> Floats:
    """Return a quotient that is NaN, without a word, where it is 0 / 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Floats = np.true_divide(numerator, denominator)
    return ratio


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
