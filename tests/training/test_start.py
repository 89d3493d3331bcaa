"""Nets that start from the weights of another model."""

import logging

import numpy as np
import pytest
import torch
from nets import card

from fcntile.errors import OptionError
from fcntile.models.card import Band
from fcntile.models.model_file import Model
from fcntile.models.pretrained import Pretrained
from fcntile.models.registry import create_model
from fcntile.training.start import choose_start, normalisation, start_from

RGB = ("red", "green", "blue")
FIRST, LAST = "block1.1_1.conv1_1.weight", "score_fr.weight"


def model(bands=RGB, classes=3, seed=1, width=4):
    """Return a small FCN-8s with random weights, as a model file holds it."""
    torch.manual_seed(seed)
    options = {"width": width, "head": 8, "batch_norm": True}
    made = card("fcn8s", bands=len(bands), classes=classes, arch_options=options)
    net = create_model("fcn8s", len(bands), classes, **options)
    for buffer in net.buffers():
        buffer.add_(1)  # as if trained
    names = tuple(Band(name, 1.0, 2.0) for name in bands)
    return Model(net, type(made)(**{**vars(made), "bands": names}), sha256="")


def weights(net):
    return {name: weight.clone() for name, weight in net.state_dict().items()}


def started(bands, classes, start):
    """Return the weights of a net before and after it was given those of a model."""
    net = model(bands, classes, seed=2).net
    before = weights(net)
    start_from(net, bands, ("background", "building"), start)
    return before, weights(net)


def test_all_weights_of_an_equal_net_are_taken():
    start = model()
    _, now = started(RGB, 3, start)
    for name, weight in weights(start.net).items():
        assert torch.equal(now[name], weight), name


def test_other_classes_keep_their_random_scores(caplog):
    start = model()
    with caplog.at_level(logging.INFO):
        before, now = started(RGB, 5, start)
    given = weights(start.net)
    other = {name for name in given if given[name].shape != now[name].shape}
    scores = {
        f"score_{layer}.{kind}" for layer in ("fr", "pool4", "pool3") for kind in ("weight", "bias")
    }
    assert other == scores | {f"{name}.weight" for name in ("upscore2", "upscore_pool4", "upscore")}
    for name, weight in now.items():
        assert torch.equal(weight, before[name] if name in other else given[name]), name
    assert "random as before" in caplog.text
    assert all(name in caplog.text for name in other)


def test_filters_follow_the_names_of_bands():
    start = model()
    given = weights(start.net)[FIRST]
    _, now = started(("nir", "blue", "green", "red"), 3, start)
    assert torch.equal(now[FIRST][:, 3], given[:, 0])
    assert torch.equal(now[FIRST][:, 2], given[:, 1])
    assert torch.equal(now[FIRST][:, 1], given[:, 2])
    torch.testing.assert_close(now[FIRST][:, 0], given.sum(1) / 3)
    for name, weight in weights(start.net).items():
        assert name == FIRST or torch.equal(now[name], weight)


def test_capitals_make_no_other_band():
    start = model(("B02", "Red", "NIR"))
    _, now = started(("nir", "B02", "RED"), 3, start)
    assert torch.equal(now[FIRST], weights(start.net)[FIRST][:, [2, 0, 1]])


def test_as_many_bands_in_another_order_are_told_apart():
    start = model(width=3)  # so that inner kernels have three inputs too
    net = model(("blue", "green", "red"), seed=2, width=3).net
    start_from(net, ("blue", "green", "red"), ("a", "b"), start)
    given, now = weights(start.net), weights(net)
    assert torch.equal(now[FIRST], given[FIRST].flip(1))
    for name, weight in given.items():
        assert name == FIRST or torch.equal(now[name], weight)


def test_a_net_that_nothing_fits_starts_from_chance_and_says_so(caplog):
    net = create_model("probe", 3, 2)
    before = weights(net)
    start_from(net, RGB, ("a", "b"), model())
    assert all(torch.equal(weight, before[name]) for name, weight in weights(net).items())
    assert "no weight of test-fcn8s fits the net: it starts from chance" in caplog.text


@pytest.mark.parametrize(
    ("names", "dtype", "mean"),
    [
        (RGB, "uint8", 128.0),
        (("nir", "red", "green"), "uint8", 7.0),
        (RGB, "uint16", 7.0),
    ],
)
def test_normalisation_is_the_start_s_if_bands_are_the_same(names, dtype, mean):
    bands = normalisation(names, dtype, [7.0] * 3, [2.0] * 3, card("pixel"))
    assert [band.name for band in bands] == list(names)
    assert {band.mean for band in bands} == {mean}


COLOUR_MEAN = {"red": 120.0, "green": 110.0, "blue": 100.0}


def pretrained(spread):
    bands = tuple(Band(name, mean, 1.0) for name, mean in COLOUR_MEAN.items())
    return Pretrained("VGG16 of a test", {}, bands, spread)


@pytest.mark.parametrize("names", [RGB, ("blue", "green", "red")])
def test_colours_in_bytes_have_the_normalisation_of_foreign_weights(names):
    bands = normalisation(names, "uint8", [7.0] * 3, [2.0] * 3, pretrained(58.0))
    assert [(band.name, band.mean, band.std) for band in bands] == [
        (name, COLOUR_MEAN[name], 1.0) for name in names
    ]


@pytest.mark.parametrize("spread", [1.0, 58.0])
@pytest.mark.parametrize(
    ("names", "dtype"), [(("nir", "red", "green"), "uint8"), (RGB, "uint16"), (RGB[:2], "uint8")]
)
def test_other_bands_spread_as_far_as_foreign_weights_are_used_to(names, dtype, spread):
    std = [20.0, 300.0, 4.0][: len(names)]
    values = np.random.default_rng(0).normal(500, std, (10_000, len(names)))
    bands = normalisation(
        names, dtype, list(values.mean(0)), list(values.std(0)), pretrained(spread)
    )
    normalised = [(v - band.mean) / band.std for v, band in zip(values.T, bands, strict=True)]
    np.testing.assert_allclose(np.mean(normalised, 1), 0, atol=1e-9)
    np.testing.assert_allclose(np.std(normalised, 1), spread)


def test_a_net_does_not_start_from_two_things():
    with pytest.raises(OptionError, match="give either --init or --init-weights"):
        choose_start("buildings", "vgg16.pth")
