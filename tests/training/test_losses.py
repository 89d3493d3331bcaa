"""Losses against plain sums, and against each other."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fcntile.errors import OptionError
from fcntile.raster.classes import UNLABELLED
from fcntile.training.losses import Loss, median_frequency
from fcntile.training.recipes import parse_loss


def batch(classes=4, unlabelled=0.2, seed=0, shape=(2, 9, 11)):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape[0], classes, *shape[1:], generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, shape, generator=generator)
    labels[torch.rand(shape, generator=generator) < unlabelled] = UNLABELLED
    return 3 * logits, labels


def by_hand(name, logits, labels, weights):
    """Compute a loss pixel by pixel in float64."""
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    n, k = logits.shape[:2]
    total, norm, hit, area, soft = 0.0, 0.0, np.zeros(k), np.zeros(k), np.zeros(k)
    for i in range(n):
        for (row, column), y in np.ndenumerate(labels[i].numpy()):
            if y == UNLABELLED:
                continue
            q = p[i, :, row, column]
            focus = (1 - q[y]) ** 2 if name == "focal" else 1
            total += -weights[y] * focus * np.log(q[y])
            norm += weights[y]
            hit[y] += q[y]
            area[y] += 1
            soft += q
    if name == "dice":
        return np.mean([1 - 2 * hit[c] / (area[c] + soft[c]) for c in range(k) if area[c]])
    return total / norm


@pytest.mark.parametrize("name", ["ce", "dice", "focal"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), classes=st.integers(2, 6), unlabelled=st.floats(0, 0.9))
def test_losses_are_their_formulas(name, seed, classes, unlabelled):
    logits, labels = batch(classes, unlabelled, seed)
    weights = torch.rand(classes, generator=torch.Generator().manual_seed(seed)) + 0.1
    loss = Loss({name: 1.0}, weights)(logits, labels).item()
    assert loss == pytest.approx(by_hand(name, logits, labels, weights.numpy()), rel=1e-5)


def test_a_sum_is_the_weighted_sum():
    logits, labels = batch()
    one, two = (Loss({name: 1.0})(logits, labels) for name in ("ce", "dice"))
    assert Loss(parse_loss("ce+0.5*dice"))(logits, labels) == pytest.approx(one + 0.5 * two)


@pytest.mark.parametrize("name", ["ce", "dice", "focal"])
def test_a_better_answer_costs_less(name):
    _, labels = batch(unlabelled=0.3)
    right = torch.nn.functional.one_hot(labels.where(labels < 4, 0), 4).permute(0, 3, 1, 2).double()
    costs = [Loss({name: 1.0})(sure * right, labels).item() for sure in (-2, 0, 2, 8, 40)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 1e-6


@pytest.mark.parametrize("name", ["ce", "dice", "focal"])
def test_unlabelled_pixels_do_not_count(name):
    logits, labels = batch()
    other = logits + 50 * torch.randn_like(logits) * (labels == UNLABELLED)[:, None]
    logits.requires_grad_()
    loss = Loss({name: 1.0})(logits, labels)
    loss.backward()
    assert Loss({name: 1.0})(other, labels).item() == pytest.approx(loss.item(), rel=1e-6)
    assert (logits.grad.abs().sum(1)[labels == UNLABELLED] == 0).all()


def test_a_batch_without_labels_costs_nothing():
    logits, labels = batch()
    logits.requires_grad_()
    loss = Loss(parse_loss("ce+dice+focal"))(logits, torch.full_like(labels, UNLABELLED))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_rare_classes_weigh_more():
    weights = median_frequency(torch.tensor([9000, 900, 90, 0]))
    assert weights.tolist() == pytest.approx([0.1, 1.0, 10.0, 10.0])


@pytest.mark.parametrize("text", ["", "ce+", "l1", "ce*2", "ce+ce", "-1*ce"])
def test_a_sum_of_unknown_losses_is_refused(text):
    with pytest.raises(OptionError, match="is not a sum of ce, dice, focal"):
        parse_loss(text)
