import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy

from fcntile.inference.products import Threshold, best_class, make_products, quantise, reduce

NAMES = ["probabilities", "confidence", "entropy", "logits"]


@pytest.fixture
def logits():
    torch.manual_seed(0)
    return 3 * torch.randn(5, 30, 40)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_products_are_those_of_scipy(logits, dtype):
    best, made = reduce(logits, make_products(NAMES, 5, dtype))
    mask, *products = (t.numpy() for t in made)
    p = softmax(logits.double().numpy(), axis=0)
    expected = [p, p.max(0)[None], entropy(p, axis=0)[None] / np.log(5), logits.numpy()]
    assert torch.equal(best, logits.amax(0))
    assert np.array_equal(mask[0], p.argmax(0))
    for name, product, wanted in zip(NAMES, products, expected, strict=True):
        assert product.dtype == np.float32, name
        if dtype == "float16":
            assert np.abs(product - wanted).max() < 1e-3 * max(1, np.abs(wanted).max()), name
            assert np.array_equal(product.astype(np.float16).astype(np.float32), product), name
        else:
            assert np.abs(product - wanted).max() < 1e-5, name


@settings(deadline=None)
@given(st.integers(1, 70), st.integers(1, 300), st.integers(1, 6), st.data())
def test_a_pixel_has_the_same_bits_whatever_pixels_are_with_it(height, width, classes, data):
    """On one thread, as where tiles are blended."""
    rows = slice(*sorted((data.draw(st.integers(0, height - 1)), height)))
    columns = slice(data.draw(st.integers(0, width - 1)), width)
    torch.manual_seed(0)
    logits = 3 * torch.randn(classes, height, width)
    products, before = make_products(NAMES, classes, "float32"), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole, piece = (reduce(part, products)[1] for part in (logits, logits[:, rows, columns]))
    finally:
        torch.set_num_threads(before)
    for name, of_whole, of_piece in zip(["mask", *NAMES], whole, piece, strict=True):
        assert torch.equal(of_whole[:, rows, columns], of_piece), name


def test_uint8_is_rounded_to_the_nearest_level(logits):
    _, (_, p, confidence, h) = reduce(logits, make_products(NAMES[:3], 5, "uint8"))
    exact = softmax(logits.double().numpy(), axis=0)
    for product, wanted in ((p, exact), (confidence, exact.max(0)[None])):
        assert product.dtype == torch.uint8
        assert np.abs((product.numpy() - 1.0) / 254 - wanted).max() <= 0.5 / 254 + 1e-6
    assert int(h.min()) >= 1
    assert quantise(torch.tensor([0.0, 0.5 / 254 - 1e-6, 1.0])).tolist() == [1, 1, 255]


def test_logits_are_never_quantised():
    assert make_products(["logits"], 5, "uint8")[1].dtype == torch.float32


@pytest.mark.parametrize("probability", [0, 0.1, 0.5, 0.9, 1])
def test_a_threshold_sets_one_class_against_the_rest(logits, probability):
    p = softmax(logits.double().numpy(), axis=0)
    others = p.copy()
    others[3] = -1
    expected = np.where(p[3] >= probability, 3, others.argmax(0))
    _, (mask,) = reduce(logits, make_products([], 5, "uint8"), Threshold(3, probability))
    assert (mask[0].numpy() != expected).mean() < 1e-3  # float32 against float64 at the threshold


@pytest.mark.parametrize("classes", [1, 2, 6, 254, 255, 256, 300, 32768])
def test_the_best_class_is_that_of_argmax(classes):
    logits = torch.randint(0, 9, (classes, 20, 30)).float()  # with many ties
    logits[-1, :10] = 9  # where the last class wins
    best, positions = best_class(logits)
    assert torch.equal(best, logits.amax(0))
    assert np.array_equal(positions.numpy(), logits.numpy().argmax(0))
    assert positions.dtype == (torch.uint8 if classes <= 255 else torch.int16)
