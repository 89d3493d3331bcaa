"""Scores against scikit-learn, exact fractions, and brute force."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sklearn

from fcntile.raster.classes import UNKNOWN, UNLABELLED
from fcntile.training.boundary import boundary_f1, boundary_margin, boundary_matches
from fcntile.training.metrics import TOTALS, Scores, bootstrap, confusion_matrix, sums

EXACT = {"rtol": 0, "atol": 1e-12}


def pixels(classes, size, seed):
    """Return labels and ids of which a good half agree; some do not count, in either or both."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, size).astype(np.uint16)
    ids = np.where(random.random(size) < 0.6, labels, random.integers(0, classes, size))
    ids = ids.astype(np.uint16)
    labels[random.random(size) < 0.1] = UNLABELLED
    ids[random.random(size) < 0.1] = UNKNOWN
    return labels, ids


def counted(labels, ids, classes):
    both = (labels < classes) & (ids < classes)
    return labels[both], ids[both]


def sklearn_scores(labels, ids, classes):
    """Return everything that Scores has, of arrays in which every class occurs."""
    every = {"labels": range(classes), "average": None}
    return {
        "pixel_accuracy": sklearn.accuracy_score(labels, ids),
        "mean_accuracy": sklearn.balanced_accuracy_score(labels, ids),
        "miou": sklearn.jaccard_score(labels, ids, average="macro"),
        "fw_iou": sklearn.jaccard_score(labels, ids, average="weighted"),
        "kappa": sklearn.cohen_kappa_score(labels, ids),
        "iou": sklearn.jaccard_score(labels, ids, **every),
        "f1": sklearn.f1_score(labels, ids, **every),
        "precision": sklearn.precision_score(labels, ids, **every),
        "recall": sklearn.recall_score(labels, ids, **every),
        "pixels": np.bincount(labels, minlength=classes),
    }


@pytest.mark.parametrize(("classes", "size"), [(2, 100), (5, 3000), (60, 20_000)])
@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_scikit_learn(classes, size, seed):
    labels, ids = pixels(classes, size, seed)
    confusion = confusion_matrix(labels, ids, classes)
    labels, ids = counted(labels, ids, classes)
    expected = sklearn.confusion_matrix(labels, ids, labels=range(classes))
    assert np.array_equal(confusion, expected)
    assert confusion.dtype == np.int64
    scores = Scores.of(confusion)
    for name, expected in sklearn_scores(labels, ids, classes).items():
        np.testing.assert_allclose(getattr(scores, name), expected, **EXACT, err_msg=name)


def test_a_matrix_worked_out_by_hand():
    """Class 2 is in the labels only, 3 in the mask only, 4 in neither."""
    confusion = np.zeros((5, 5), np.int64)
    confusion[0, 0], confusion[0, 1], confusion[1, 1], confusion[2, 3] = 6, 2, 4, 3
    scores = Scores.of(confusion)
    nan = np.nan
    np.testing.assert_allclose(scores.iou, [6 / 8, 4 / 6, 0, 0, nan], **EXACT)
    np.testing.assert_allclose(scores.recall, [6 / 8, 1, 0, nan, nan], **EXACT)
    np.testing.assert_allclose(scores.precision, [1, 4 / 6, nan, 0, nan], **EXACT)
    np.testing.assert_allclose(scores.f1, [12 / 14, 8 / 10, 0, 0, nan], **EXACT)
    assert scores.pixels.tolist() == [8, 4, 3, 0, 0]
    assert scores.pixel_accuracy == pytest.approx(10 / 15, abs=1e-12)
    assert scores.miou == pytest.approx((6 / 8 + 4 / 6) / 4, abs=1e-12)
    assert scores.mean_accuracy == pytest.approx((6 / 8 + 1) / 3, abs=1e-12)
    assert scores.fw_iou == pytest.approx((8 * 6 / 8 + 4 * 4 / 6) / 15, abs=1e-12)


def test_nothing_has_no_score():
    for classes in (0, 3):
        scores = Scores.of(confusion_matrix(np.empty(0, int), np.empty(0, int), classes))
        assert all(np.isnan(getattr(scores, name)) for name in TOTALS)


def test_one_class_alone_agrees_by_chance():
    scores = Scores.of(np.array([[7]]))
    assert (scores.miou, scores.pixel_accuracy) == (1, 1)
    assert np.isnan(scores.kappa)


@given(arrays(np.int64, (3, 3), elements=st.integers(0, 10**12)))
def test_large_counts_lose_no_digits(confusion):
    """Kappa by its textbook formula, in exact fractions; there 1 - (nearly 1) costs floats all."""
    n = [[Fraction(int(v)) for v in row] for row in confusion]
    total = sum(map(sum, n))
    scores = Scores.of(confusion)
    if not total:
        assert np.isnan(scores.kappa)
        return
    observed = sum(n[i][i] for i in range(3)) / total
    chance = sum(sum(n[i]) * sum(row[i] for row in n) for i in range(3)) / total**2
    assert scores.pixel_accuracy == pytest.approx(float(observed), abs=1e-12)
    if chance == 1:
        assert np.isnan(scores.kappa)
    else:
        kappa = (observed - chance) / (1 - chance)
        assert scores.kappa == pytest.approx(float(kappa), rel=1e-12, abs=1e-12)


def test_scores_of_many_matrices_at_once_are_those_of_each():
    matrices = [confusion_matrix(*pixels(4, 500, seed), 4) for seed in range(5)]
    together = Scores.of_sums(*np.stack([sums(m) for m in matrices], axis=1))
    for i, matrix in enumerate(matrices):
        alone = Scores.of(matrix)
        for name in (*TOTALS, "iou", "f1", "precision", "recall", "pixels"):
            assert np.array_equal(getattr(together, name)[i], getattr(alone, name))


# --- boundaries -------------------------------------------------------------------------------


def brute_boundary(a, other, classes):
    """Return {class: set of (row, column)} of the boundary pixels of `a`."""
    height, width = a.shape

    def kind(row, column):
        if not (0 <= row < height and 0 <= column < width):
            return None
        is_out = a[row, column] >= classes or other[row, column] >= classes
        return None if is_out else int(a[row, column])

    found = {c: set() for c in range(classes)}
    for row in range(height):
        for column in range(width):
            here = kind(row, column)
            beside = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
            around = {kind(*place) for place in beside}
            if here is not None and around - {here, None}:
                found[here].add((row, column))
    return found


def brute_matches(labels, ids, classes, tolerance):
    """Return (4, classes) by comparing every boundary pixel with every other."""
    mine, truth = brute_boundary(ids, labels, classes), brute_boundary(labels, ids, classes)

    def near(these, those):
        return sum(any(np.hypot(r - y, c - x) <= tolerance for y, x in those) for r, c in these)

    rows = [
        [len(mine[c]) for c in range(classes)],
        [near(mine[c], truth[c]) for c in range(classes)],
        [len(truth[c]) for c in range(classes)],
        [near(truth[c], mine[c]) for c in range(classes)],
    ]
    return np.array(rows)


TOLERANCES = st.sampled_from([0, 0.5, 1, 1.5, 2, 3, 4.3])
SCENES = st.tuples(st.integers(1, 14), st.integers(1, 14), st.integers(1, 3), st.integers(0, 999))


def scene(height, width, classes, seed):
    """Return patchy labels and ids with pixels that do not count."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, classes, (height // 3 + 1, width // 3 + 1))
    labels = np.kron(coarse, np.ones((3, 3), int))[:height, :width].astype(np.uint16)
    ids = np.roll(labels, random.integers(-2, 3), axis=random.integers(2))
    ids[random.random(ids.shape) < 0.05] = 0
    labels[random.random(ids.shape) < 0.05] = UNLABELLED
    ids[random.random(ids.shape) < 0.05] = UNLABELLED
    return labels, ids


@settings(max_examples=60, deadline=None)
@given(SCENES, TOLERANCES)
def test_boundary_matches_are_those_of_brute_force(size, tolerance):
    labels, ids = scene(*size)
    matches = boundary_matches(labels, ids, size[2], tolerance)
    assert np.array_equal(matches, brute_matches(labels, ids, size[2], tolerance))


@settings(max_examples=60, deadline=None)
@given(SCENES, TOLERANCES, st.integers(1, 9), st.integers(1, 9))
def test_blocks_with_a_margin_add_up_to_the_whole(size, tolerance, rows, columns):
    height, width, classes, _ = size
    labels, ids = scene(*size)
    margin, total = boundary_margin(tolerance), 0
    for row in range(0, height, rows):
        for column in range(0, width, columns):
            top, left = max(0, row - margin), max(0, column - margin)
            seen = np.s_[top : row + rows + margin, left : column + columns + margin]
            core = (
                slice(row - top, row - top + rows),
                slice(column - left, column - left + columns),
            )
            total += boundary_matches(labels[seen], ids[seen], classes, tolerance, core)
    assert np.array_equal(total, boundary_matches(labels, ids, classes, tolerance))


def test_a_square_that_is_shifted_matches_within_the_shift():
    labels = np.zeros((20, 20), int)
    labels[5:15, 5:15] = 1
    ids = np.roll(labels, 2, axis=1)
    assert boundary_f1(boundary_matches(labels, labels, 2, 0)).tolist() == [1, 1]
    assert boundary_f1(boundary_matches(labels, ids, 2, 2)).tolist() == [1, 1]
    assert (boundary_f1(boundary_matches(labels, ids, 2, 1)) < 1).all()


def test_a_boundary_that_one_side_lacks_scores_0_and_that_both_lack_nothing():
    labels = np.zeros((4, 4), int)
    labels[:, 2:] = 1
    f1 = boundary_f1(boundary_matches(labels, np.zeros((4, 4), int), 3, 1))
    np.testing.assert_array_equal(f1, [0, 0, np.nan])


# --- bootstrap --------------------------------------------------------------------------------


def blocks_of_ground(count, classes=3):
    """Return pixels of blocks that differ in how good the mask is."""
    blocks = []
    for seed in range(count):
        labels, ids = counted(*pixels(classes, 300, seed), classes)
        blocks.append(
            (labels[seed:], np.where(np.arange(len(ids)) % (seed + 2), ids, labels)[seed:])
        )
    return blocks


def test_intervals_are_percentiles_of_the_scores_of_redrawn_ground():
    ground = blocks_of_ground(6)
    blocks = np.stack([sums(confusion_matrix(*pair, 3)) for pair in ground], axis=1)
    intervals = bootstrap(blocks, rounds=20, seed=7)

    random, drawn = np.random.default_rng(7), []
    for _ in range(20):
        chosen = [ground[i] for i in random.integers(6, size=6)]
        labels, ids = (np.concatenate(part) for part in zip(*chosen, strict=True))
        drawn.append(sklearn_scores(labels, ids, 3))
    for name in TOTALS:
        low, high = np.percentile([scores[name] for scores in drawn], (2.5, 97.5))
        np.testing.assert_allclose(intervals[name], [low, high], **EXACT)


def test_intervals_hold_the_score_and_repeat():
    ground = blocks_of_ground(12)
    blocks = np.stack([sums(confusion_matrix(*pair, 3)) for pair in ground], axis=1)
    scores = Scores.of_sums(*blocks.sum(axis=1))
    intervals = bootstrap(blocks, 300)
    for name, (low, high) in intervals.items():
        assert low < getattr(scores, name) < high
    assert bootstrap(blocks, 300) == intervals
    assert bootstrap(blocks, 300, seed=1) != intervals


def test_rounds_without_a_score_are_left_out():
    """Each block has one class only: kappa is undefined where both draws are the same block."""
    blocks = np.stack([sums(np.diag([5, 0])), sums(np.diag([0, 5]))], axis=1)
    assert bootstrap(blocks, 50)["kappa"] == (1, 1)
    assert np.isnan(bootstrap(blocks[:, :1], 50)["kappa"]).all()
