"""Pictures of samples, read back."""

import resource

import numpy as np
import pytest
from nets import card
from skimage.io import imread

from fcntile.errors import OutputError
from fcntile.raster.classes import UNLABELLED
from fcntile.training.pictures import GAP, draw_classes, draw_image, save_samples, shown_bands


def test_an_image_is_gray_at_its_mean_and_black_and_white_two_deviations_off():
    x = np.array([-9, -2, -1, 0, 1, 2, 9], np.float32)[None, None] * np.ones((4, 1, 1), np.float32)
    x[3] = 0
    picture = draw_image(x, [0, 1, 3])
    assert picture.shape == (1, 7, 3)
    assert picture[0, :, 0].tolist() == [0, 0, 63, 127, 191, 255, 255]
    assert picture[0, :, 2].tolist() == [127] * 7


def test_classes_have_their_colours_and_unlabelled_pixels_are_gray():
    ids = np.array([[0, 1], [2, UNLABELLED]])
    expected = [[[0, 0, 0], [230, 25, 75]], [[60, 180, 75], [128, 128, 128]]]
    assert draw_classes(ids, card("pixel")).tolist() == expected


def test_one_or_two_bands_are_shown_in_gray():
    assert shown_bands(card("pixel", bands=1)) == shown_bands(card("pixel", bands=2)) == [0, 0, 0]
    assert shown_bands(card("pixel", bands=5)) == [0, 1, 2]
    assert shown_bands(card("pixel", bands=3)) == [0, 1, 2]


def test_samples_are_in_rows_and_columns(tmp_path, noise):
    pictures = [
        [noise(20, 20, 3, seed=3 * row + column) for column in range(3)] for row in range(2)
    ]
    save_samples(tmp_path / "s.png", pictures)
    whole = imread(tmp_path / "s.png")
    assert whole.shape == (2 * 20 + 3 * GAP, 3 * 20 + 4 * GAP, 3)
    for row in range(2):
        for column in range(3):
            top, left = GAP + row * (20 + GAP), GAP + column * (20 + GAP)
            here = whole[top : top + 20, left : left + 20]
            np.testing.assert_array_equal(here, pictures[row][column])
    assert (whole[:GAP] == 255).all()


def test_a_full_disk_leaves_the_picture_before(tmp_path, noise):
    """A limit on file size stands in for the full disk: the same failing write."""
    save_samples(tmp_path / "s.png", [[noise(10, 10, 3)]])
    before = (tmp_path / "s.png").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(OutputError, match="is the disk full"):
            save_samples(tmp_path / "s.png", [[noise(300, 300, 3)]])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["s.png"]
    assert (tmp_path / "s.png").read_bytes() == before
