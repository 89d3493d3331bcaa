"""Weights and an image that every source is tried with."""

import numpy as np
import pytest
import torch
from vgg import random_vgg

from fcntile.models.pretrained import load_into
from fcntile.models.registry import create_model

RGB = ("red", "green", "blue")


@pytest.fixture(scope="session")
def weights():
    """Return random weights of VGG16's convolutions, for bands in the order the source has."""
    return random_vgg()


@pytest.fixture(scope="session")
def image():
    """Return (64, 96, 3) uint8, red, green, blue, of different levels."""
    rng = np.random.default_rng(0)
    return (rng.integers(0, 120, (64, 96, 3)) + np.array([0, 60, 130])).astype(np.uint8)


@pytest.fixture
def our_pools(image):
    """Return the pooled maps that a net of ours computes of the image with given weights."""

    def compute(given, **options):
        options = {"width": 64, "head": 8, **options}
        net = create_model("fcn32s", 3, 2, **options).eval()
        load_into(net, RGB, given)
        mean, std = (
            torch.tensor([getattr(b, n) for b in given.bands])[:, None, None]
            for n in ("mean", "std")
        )
        x = ((torch.from_numpy(image).permute(2, 0, 1).float() - mean) / std)[None]
        found = []
        with torch.no_grad():
            for block in (net.block1, net.block2, net.block3, net.block4, net.block5):
                x = block(x)
                found.append(x)
        return found

    return compute


@pytest.fixture
def assert_same_maps():
    """Check that maps are equal up to 1e-4 of their scale, and are not all zero."""

    def check(ours, theirs):
        for mine, other in zip(ours, theirs, strict=True):
            scale = other.abs().max()
            assert scale > 0.1
            assert (mine - other).abs().max() <= 1e-4 * scale

    return check
