"""Changes to windows: imagery and labels stay together."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fcntile.raster.classes import UNLABELLED
from fcntile.training.augment import Augmentation


def window(side, seed=0):
    """Return a window of 4 bands whose labels can be read off its first band."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (side, side), generator=generator)
    x = torch.stack([labels.float() - 1, *torch.randn(3, side, side, generator=generator)])
    return x, torch.ones(side, side, dtype=bool), labels


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), side=st.integers(3, 40))
def test_flips_and_turns_move_labels_with_pixels(seed, side):
    x, valid, labels = window(side, seed)
    new, moved = Augmentation(1.0, 0.0)(x, valid, labels, side, np.random.default_rng(seed))
    assert torch.equal(new[0], moved.float() - 1)
    assert sorted(new[1].flatten().tolist()) == sorted(x[1].flatten().tolist())


def test_all_eight_turns_occur_alike():
    x, valid, labels = window(4)
    rng = np.random.default_rng(0)
    seen = {}
    for _ in range(800):
        new, _ = Augmentation(1.0, 0.0)(x, valid, labels, 4, rng)
        key = tuple(new[1].flatten().tolist())
        seen[key] = seen.get(key, 0) + 1
    assert len(seen) == 8
    assert min(seen.values()) > 60


@pytest.mark.parametrize("side", [32, 64, 128])
def test_scaled_labels_stay_on_their_pixels(side):
    """A disc stays a disc: the edge of imagery and labels is at the same place."""
    r = (torch.arange(side) + 0.5) / side - 0.5
    labels = ((r[:, None] ** 2 + r**2) < 0.1).long()
    x = labels[None].float() * 2 - 1
    valid = torch.ones(side, side, dtype=bool)
    still = Augmentation(2.0, 0.0, flip=False)
    new, ids = still(x, valid, labels, 64, np.random.default_rng(0))
    assert new.shape == (1, 64, 64)
    assert ((new[0] > 0).long() != ids).float().mean() < 0.012


def test_the_side_is_within_the_scale():
    rng = np.random.default_rng(0)
    sides = [Augmentation(2.0).draw_side(256, rng) for _ in range(500)]
    assert 128 <= min(sides) < 140
    assert 480 < max(sides) <= 512
    assert {Augmentation(1.0).draw_side(256, rng) for _ in range(9)} == {256}


def test_jitter_changes_bands_together_and_each():
    x, valid, labels = window(32)
    new, _ = Augmentation(1.0, 0.3, flip=False)(x, valid, labels, 32, np.random.default_rng(5))
    gain, bias = [], []
    for old, changed in zip(x.numpy(), new.numpy(), strict=True):
        slope, offset = np.polyfit(old.ravel(), changed.ravel(), 1)
        assert np.allclose(slope * old + offset, changed, atol=1e-4)  # linear in each band
        gain.append(slope)
        bias.append(changed.mean() - old.mean())
    assert len({round(g, 4) for g in gain}) == 4
    assert max(np.abs(np.log(gain))) < 0.46
    assert max(np.abs(bias)) < 0.46


def test_pixels_without_data_stay_so():
    x, valid, labels = window(40)
    valid[:, :13] = False
    x[:, ~valid] = 0
    labels[~valid] = UNLABELLED
    for seed in range(20):
        new, ids = Augmentation()(x, valid, labels, 64, np.random.default_rng(seed))
        assert (new[:, ids == UNLABELLED] == 0).all()
        assert 0.25 < (ids == UNLABELLED).float().mean() < 0.4
