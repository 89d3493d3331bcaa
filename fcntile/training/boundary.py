"""The boundary F1: how well outlines agree, which areas hide (Csurka et al., BMVC 2013)."""

import numpy as np
from numpy.typing import NDArray

from fcntile.training.metrics import Floats, Positions, ratio

EVERYTHING = (slice(None), slice(None))


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
    f1 = ratio(2 * mask_matched * labels_matched, mask_matched * labels + labels_matched * mask)
    return np.where(mask + labels > 0, np.nan_to_num(f1, nan=0.0), np.nan)
