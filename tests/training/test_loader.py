"""Training windows against slices of whole arrays, and the threads that read them."""

import threading
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from fcntile.errors import InputError
from fcntile.raster.classes import UNLABELLED
from fcntile.training.augment import Augmentation
from fcntile.training.ground import prepare
from fcntile.training.loader import Windows, load

STILL = Augmentation(scale=1.0, jitter=0.0, flip=False)


def windows_of(image, labels, *, window=64, augmentation=STILL, val_share=0.0, **more):
    ground = prepare([image], labels, val_share=val_share)
    bands = len(ground.mean)
    scale = more.get("mean", [0] * bands), more.get("std", [1] * bands)
    return Windows(
        ground.dataset, ground.sampler(0.5), ground.split, ground.table, *scale,
        window=window, augmentation=augmentation, seed=5,
    )  # fmt: skip


@pytest.fixture
def pair(make_raster, noise):
    """Return an image whose first two bands say row and column, and uint16 labels."""
    image = noise(3, 200, 230)
    image[0], image[1] = np.arange(200)[:, None], np.arange(230)
    labels = noise(1, 200, 230, seed=1).astype(np.uint16) % 3 * 1000
    labels[0, :70] = 65535
    return make_raster(image), make_raster(labels, "labels.tif", nodata=65535), image, labels[0]


def test_a_window_is_a_slice_of_image_and_labels(pair):
    image_path, labels_path, image, labels = pair
    mean, std = np.float32([100, 50, 3]), np.float32([2, 4, 8])
    windows = windows_of(image_path, labels_path, mean=mean, std=std)
    places = set()
    for number in range(30):
        x, y = windows[number]
        top, left = round(x[0, 0, 0].item() * 2 + 100), round(x[1, 0, 0].item() * 4 + 50)
        here = np.s_[top : top + 64, left : left + 64]
        expected = (image.transpose(1, 2, 0)[here] - mean) / std
        np.testing.assert_array_equal(x.numpy(), expected.transpose(2, 0, 1))
        ids = np.where(labels[here] == 65535, UNLABELLED, labels[here] // 1000)
        np.testing.assert_array_equal(y.numpy(), ids)
        places.add((top, left))
    assert len(places) > 20
    assert all(top > 6 for top, _ in places)  # labels begin in row 70


def test_a_raster_smaller_than_the_window_is_in_its_middle(make_raster, noise):
    image, labels = noise(2, 40, 50), noise(1, 40, 50, seed=1) % 2
    windows = windows_of(make_raster(image), make_raster(labels, "labels.tif"))
    for number in range(5):
        x, y = windows[number]
        inside = np.s_[12:52, 7:57]
        np.testing.assert_array_equal(
            x.numpy().transpose(1, 2, 0)[inside], image.transpose(1, 2, 0)
        )
        np.testing.assert_array_equal(y.numpy()[inside], labels[0])
        assert x.sum().item() == image.sum()
        assert (y != UNLABELLED).sum() == 40 * 50


def test_pixels_without_data_are_zero_and_unlabelled(make_raster, noise):
    image = noise(1, 128, 128).astype(np.float32)
    image[0, 30:50, :] = np.nan
    image[0, :, 90] = np.inf
    labels = noise(1, 128, 128, seed=1) % 2
    windows = windows_of(make_raster(image), make_raster(labels, "l.tif"), mean=[9], std=[3])
    holes = 0
    for number in range(20):
        x, y = windows[number]
        assert x.isfinite().all()
        assert (x[0][y == UNLABELLED] == 0).all()
        holes += (y == UNLABELLED).sum().item()
    assert holes > 1000


def test_a_window_depends_on_its_number_alone(pair):
    windows = windows_of(*pair[:2], augmentation=Augmentation())
    numbers = [[0, 1], [2, 3], [4, 5], [6, 7]]
    in_one_thread = list(load(windows, numbers, 1))
    in_three = list(load(windows_of(*pair[:2], augmentation=Augmentation()), numbers, 3))
    later = list(load(windows, numbers[2:], 2))
    for one, other in zip(in_one_thread + in_one_thread[2:], in_three + later, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    halves = [list(load(windows, [n[i : i + 1] for n in numbers], 1)) for i in range(2)]
    for i, whole in enumerate(in_one_thread):
        for a, b in zip(whole, zip(halves[0][i], halves[1][i], strict=True), strict=True):
            assert torch.equal(a, torch.cat(b))


def test_batches_are_channels_last(pair):
    x, y = next(load(windows_of(*pair[:2]), [[0, 1, 2]], 1))
    assert (x.shape, y.shape) == ((3, 3, 64, 64), (3, 64, 64))
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_no_more_than_three_batches_are_read_ahead(pair):
    windows, seen = windows_of(*pair[:2]), []

    def numbers():
        for i in range(50):
            seen.append(i)
            yield [i]

    batches = load(windows, numbers(), 2)
    next(batches)
    assert len(seen) == 3
    batches.close()


def test_no_thread_is_left_when_nobody_wants_more(pair):
    before = set(threading.enumerate())
    batches = load(windows_of(*pair[:2]), ([i] for i in range(1000)), 3)
    next(batches)
    assert 1 <= len(set(threading.enumerate()) - before) <= 3  # no more than have work
    batches.close()
    assert set(threading.enumerate()) == before


def test_a_file_that_breaks_meanwhile_is_said_and_leaves_no_thread(make_raster, noise):
    image, labels = noise(3, 600, 600), noise(1, 600, 600, seed=1) % 2
    path = make_raster(image, compress="deflate", tiled=True, blockxsize=64, blockysize=64)
    windows = windows_of(path, make_raster(labels, "labels.tif"))
    whole = bytearray(Path(path).read_bytes())
    whole[len(whole) // 8 :] = bytes(len(whole) - len(whole) // 8)
    Path(path).write_bytes(whole)
    before = set(threading.enumerate())
    with pytest.raises(InputError, match=r"cannot (read rows|open).*image.tif"):
        for _ in load(windows, ([i] for i in range(1000)), 3):
            pass
    assert set(threading.enumerate()) == before


def test_many_files_do_not_stay_open(make_raster, noise, tmp_path):
    for i in range(70):
        make_raster(noise(1, 64, 64, seed=i), f"{i}.tif")
        make_raster(noise(1, 64, 64, seed=i) % 2, f"{i}_label.tif")
    ground = prepare([str(tmp_path)], f"{tmp_path}/*_label.tif", val_share=0)
    opened = Path("/proc/self/fd")
    if not opened.exists():
        pytest.skip("this system does not show open files")
    before = len(list(opened.iterdir()))
    for i in range(70):
        ground.dataset.read(i, rasterio.windows.Window(0, 0, 64, 64))
    assert len(list(opened.iterdir())) - before <= 2 * 32
