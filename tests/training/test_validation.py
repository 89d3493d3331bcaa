"""Scores on ground held out, against whole arrays."""

import numpy as np
import pytest
import rasterio
import torch
from nets import save_test_model
from rasterio.windows import Window

from fcntile.inference.devices import make_plan
from fcntile.models.model_file import load_model
from fcntile.raster.classes import UNLABELLED
from fcntile.training.ground import prepare
from fcntile.training.metrics import confusion_matrix
from fcntile.training.validation import CONTEXT, MAX_BLOCKS, Validation

PLAN = make_plan("cpu", threads=1, batch_size=2)


@pytest.fixture
def ground(make_raster, noise):
    """Return ground of 5 x 4 blocks, cut by the rim, with holes in imagery and labels."""
    mask = np.full((300, 250), 255, np.uint8)
    mask[100:130, 20:200] = 0
    labels = noise(1, 300, 250, seed=1) % 3
    labels[0, 200:230] = 255
    image = make_raster(noise(3, 300, 250), mask=mask)
    return prepare([image], make_raster(labels, "labels.tif"), val_share=0.4)


def validation_of(ground, stride=1):
    windows = ground.split.windows()
    return Validation(ground.dataset, windows, ground.table, stride)


@pytest.fixture
def pixel(tmp_path):
    """Return a model whose logits of a pixel depend on it alone, and are exact."""
    return load_model(save_test_model(tmp_path / "pixel.safetensors", "pixel"))


def pixels_of(pair):
    with rasterio.open(pair.image) as image, rasterio.open(pair.labels) as labels:
        return image.read(), image.dataset_mask() > 0, labels.read(1).astype(np.uint16)


def test_the_confusion_matrix_is_that_of_the_whole_image(ground, pixel):
    image, valid, labels = pixels_of(ground.dataset.pairs[0])
    x = torch.from_numpy((image[None] - np.float32(128)) / np.float32(64))
    ids = pixel.net(x)[0].argmax(0).numpy()
    held_out = np.zeros(labels.shape, bool)
    for _, window in ground.split.windows():
        held_out[window.toslices()] = True
    labels[~held_out | ~valid | (labels == 255)] = UNLABELLED
    expected = confusion_matrix(labels, ids, 3)
    validation = validation_of(ground)
    everything = range(len(validation))
    assert len(validation) > 4
    np.testing.assert_array_equal(validation.confusion(pixel, PLAN, everything), expected)
    assert ground.pixels[1].tolist() == expected.sum(1).tolist()
    shares = [validation.confusion(pixel, PLAN, range(i, len(validation), 3)) for i in range(3)]
    np.testing.assert_array_equal(sum(shares), expected)  # as three processes have it
    nothing = validation.confusion(pixel, PLAN, [])
    np.testing.assert_array_equal(nothing, np.zeros((3, 3)))


def test_a_net_sees_the_ground_around_a_block(ground, tmp_path):
    """A block's mask is that of the whole image where the net's reach is within the context."""
    model = load_model(save_test_model(tmp_path / "probe.safetensors", "probe"))
    assert model.net.halo < CONTEXT
    with torch.no_grad():  # biases alone would decide
        for name, p in model.net.named_parameters():
            p.mul_(0.0 if name.endswith("bias") else 2.0)
    image, valid, _ = pixels_of(ground.dataset.pairs[0])
    x = torch.from_numpy((image[None] - np.float32(128)) / np.float32(64)) * torch.from_numpy(valid)
    whole = torch.nn.functional.pad(x, (64, 64, 64, 64), mode="reflect")
    ids = model.net(whole)[0, :, 64:-64, 64:-64].argmax(0)
    assert np.bincount(ids.flatten()).min() > 1000
    validation = validation_of(ground, stride=4)
    masks = list(validation.masks(model, PLAN, range(len(validation))))
    for (_, window), mask in zip(validation.windows, masks, strict=True):
        here = window.intersection(Window(0, 0, 250, 300)).toslices()
        expected = ids[here].numpy()
        found = mask[CONTEXT : CONTEXT + expected.shape[0], CONTEXT : CONTEXT + expected.shape[1]]
        assert (found != expected).mean() < 1e-3  # another size of input, other last bits


def test_masks_do_not_depend_on_the_batch(ground, tmp_path):
    model = load_model(save_test_model(tmp_path / "probe.safetensors", "probe"))
    validation = validation_of(ground, stride=4)
    plans = [make_plan("cpu", threads=t, batch_size=b) for t, b in ((1, 1), (2, 2), (1, 5))]
    first, *others = [
        validation.confusion(model, plan, range(len(validation))).tolist() for plan in plans
    ]
    assert others == [first, first]


def test_only_the_block_is_labelled(ground):
    validation = validation_of(ground, stride=32)
    for block, (_, window) in enumerate(validation.windows):
        pixels, valid, labels = validation.read(block)
        assert pixels.shape == (192, 192, 3)
        rows, columns = np.nonzero(labels != UNLABELLED)
        assert rows.min(initial=64) >= 64
        assert rows.max(initial=64) < 64 + window.height
        assert columns.min(initial=64) >= 64
        assert columns.max(initial=64) < 64 + window.width
        assert not (labels != UNLABELLED)[~valid].any()


def test_of_very_many_blocks_some_are_taken_evenly(ground):
    windows = [(0, Window(64 * i, 0, 64, 64)) for i in range(1000)]
    some = Validation(ground.dataset, windows, ground.table, 1)
    assert len(some) == 250 <= MAX_BLOCKS
    assert [window.col_off for _, window in some.windows] == list(range(0, 64_000, 256))


def test_without_ground_held_out_there_are_no_blocks(ground):
    assert len(Validation(ground.dataset, [], ground.table, 32)) == 0
