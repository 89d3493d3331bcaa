"""The survey, the split and the draw of windows, compared with whole arrays."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

import fcntile.training.dataset as dataset_module
from fcntile.errors import InputError, OptionError
from fcntile.raster.classes import UNLABELLED
from fcntile.raster.sources import LabelSource, Pair, expand, pair_files
from fcntile.training.augment import Augmentation
from fcntile.training.dataset import Dataset
from fcntile.training.ground import prepare
from fcntile.training.loader import Windows
from fcntile.training.sampling import Sampler, split_by_ground
from fcntile.training.survey import CELL, CellCounts, block_side, survey


@pytest.fixture
def make_pair(make_raster, noise):
    """Write an image of noise and labels of classes 0 to 3 with unlabelled parts."""

    def make(height, width, name="a", **profile):
        image = noise(3, height, width, seed=height)
        labels = noise(1, height, width, seed=width) % 4
        labels[0, : height // 3, : width // 4] = 255
        return Pair(
            make_raster(image, f"{name}.tif", **profile),
            make_raster(labels, f"{name}_label.tif", nodata=255),
        )

    return make


def dataset_of(*pairs):
    return Dataset(pairs, LabelSource([pair.labels for pair in pairs]))


def pixels_of(path):
    with rasterio.open(path) as raster:
        return raster.read()


def test_the_survey_counts_every_label_once(make_pair):
    pairs = make_pair(300, 500), make_pair(100, 70, "b")
    found = survey(dataset_of(*pairs))
    for image, pair in enumerate(pairs):
        labels = pixels_of(pair.labels)[0]
        here = found.counts[found.counts.image == image]
        for row, column, value, pixels in zip(
            here.row, here.column, here.value, here.pixels, strict=True
        ):
            cell = np.s_[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
            assert (labels[cell] == value).sum() == pixels
        assert here.pixels.sum() == (labels != 255).sum()
    assert found.values == [0, 1, 2, 3]


def test_the_survey_measures_bands_where_labels_and_data_are(make_raster, noise):
    image = noise(2, 200, 260).astype(np.float32) + 1e6  # where naive sums lose all digits
    image[0, :90] = np.nan
    labels = np.zeros((1, 200, 260), np.uint8)
    labels[0, :, 128:] = 255
    pair = Pair(make_raster(image, "a.tif"), make_raster(labels, "a_label.tif", nodata=255))
    found = survey(dataset_of(pair))
    mean, std = found.moments.total(np.ones(len(found.blocks), bool))
    seen = image[:, 90:, :128].reshape(2, -1).astype(np.float64)
    assert found.side == 64
    np.testing.assert_allclose(mean, seen.mean(1), rtol=1e-12)
    np.testing.assert_allclose(std, seen.std(1), rtol=1e-9)


def test_blocks_are_as_large_as_there_is_ground(make_pair):
    grids = dataset_of(make_pair(128, 128)).grids
    assert block_side(grids) == 64
    assert block_side(grids * 20) == 128
    assert block_side(grids * 1000) == 512


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0.05, 0.8), seed=st.integers(0, 99), rare=st.integers(1, 30))
def test_a_split_holds_out_a_share_of_every_class(share, seed, rare):
    rng = np.random.default_rng(seed)
    found = FakeSurvey(rng, blocks=60, rare=rare)
    split = split_by_ground(found, np.arange(65536, dtype=np.uint16), share, rng)
    held_out = split.of(found.counts)
    for value in (0, 1):
        here = found.counts.value == value
        got = found.counts.pixels[here & held_out].sum() / found.counts.pixels[here].sum()
        assert abs(got - share) < (0.12 if value == 0 or rare > 10 else 0.8)


class FakeSurvey:
    """Blocks of 2 x 2 cells in three rasters; class 1 is in a few of them."""

    def __init__(self, rng, blocks, rare):
        self.side = 2 * CELL
        self.blocks = np.array([(i % 3, i // 6, i % 6 // 3) for i in range(blocks)], np.int32)
        rows = []
        for i, (image, row, column) in enumerate(self.blocks):
            rows.append((image, 2 * row + i % 2, 2 * column + 1, 0, rng.integers(500, 1000)))
            if i < rare:
                rows.append((image, 2 * row, 2 * column, 1, rng.integers(50, 100)))
        self.counts = CellCounts(*np.array(rows).T)


def test_many_rasters_are_held_out_whole(make_pair):
    pairs = [make_pair(64 + i, 128, f"r{i}") for i in range(12)]
    found = survey(dataset_of(*pairs))
    split = split_by_ground(
        found, np.arange(65536, dtype=np.uint16), 0.25, np.random.default_rng(0)
    )
    for image in range(12):
        assert len(set(split.held_out[split.blocks[:, 0] == image])) == 1
    assert 2 <= len(set(split.blocks[split.held_out, 0])) <= 4


def test_no_training_window_shows_ground_held_out(make_pair):
    pair = make_pair(330, 400)
    ground = prepare([pair.image], pair.labels, val_share=0.3, seed=1)
    with rasterio.open(pair.image, "r+") as raster:  # the split is by labels: paint it
        pixels = np.full((3, 330, 400), 100, np.uint8)
        for _, window in ground.split.windows():
            rows, columns = window.toslices()
            pixels[:, rows, columns] = 200
        raster.write(pixels)
    ground = prepare([pair.image], pair.labels, val_share=0.3, seed=1)
    windows = Windows(
        ground.dataset, ground.sampler(0.5), ground.split, ground.table, [0] * 3, [1] * 3,
        window=64, augmentation=Augmentation(1.5, 0.0), seed=0,
    )  # fmt: skip
    blank = 0
    for number in range(60):
        x, y = windows[number]
        assert x.shape == (3, 64, 64)
        assert x.max() <= 101  # interpolation rounds
        assert (y[x[0] == 0] == UNLABELLED).all()
        blank += (x == 0).any().item()
    assert 5 < blank < 60


def test_windows_are_drawn_by_area_or_by_class(make_raster, noise):
    labels = np.zeros((1, 640, 640), np.uint8)
    labels[0, 600:632, 600:632] = 1  # 0.25 %
    pair = Pair(
        make_raster(noise(1, 640, 640), "a.tif"), make_raster(labels, "a_label.tif", nodata=255)
    )
    found = survey(dataset_of(pair))
    rng = np.random.default_rng(0)

    def share_at_the_rare_class(balance):
        sampler = Sampler(found.counts, found.counts.value, balance)
        places = np.array([sampler.draw(rng) for _ in range(2000)])
        return (places[:, 1:] >= 576).all(1).mean()

    assert share_at_the_rare_class(0.0) == pytest.approx(0.01, abs=0.008)
    assert share_at_the_rare_class(0.5) == pytest.approx(0.25, abs=0.04)
    assert share_at_the_rare_class(1.0) == pytest.approx(0.5, abs=0.05)


def test_windows_beyond_the_rim_are_without_data(make_pair):
    pair = make_pair(50, 40)
    pixels, valid, values = dataset_of(pair).read(0, Window(-10, -5, 70, 60))
    assert pixels.shape == (60, 70, 3)
    np.testing.assert_array_equal(pixels[5:55, 10:50], pixels_of(pair.image).transpose(1, 2, 0))
    labels = pixels_of(pair.labels)[0].astype(np.uint16)
    labels[labels == 255] = UNLABELLED
    np.testing.assert_array_equal(values[5:55, 10:50], labels)
    outside = np.ones((60, 70), bool)
    outside[5:55, 10:50] = False
    assert not valid[outside].any()
    assert (values[outside] == UNLABELLED).all()


def test_images_must_have_the_same_bands(make_pair, make_raster, noise):
    first = make_pair(64, 64)
    other = make_raster(noise(3, 64, 64).astype(np.uint16), "b.tif")
    with pytest.raises(InputError, match=r"3 uint16 band.*has 3 uint8 band"):
        dataset_of(first, Pair(other, first.labels))


def test_pairs_are_found_by_name(tmp_path):
    for name in ("a_1", "a_11", "b"):
        for folder, suffix in (("images", ""), ("labels", ""), ("mixed", ""), ("mixed", "_label")):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{name}{suffix}.tif").touch()
    images, labels, mixed = (str(tmp_path / name) for name in ("images", "labels", "mixed"))
    assert pair_files([images], labels) == [
        Pair(f"{images}/{name}.tif", f"{labels}/{name}.tif") for name in ("a_1", "a_11", "b")
    ]
    assert pair_files([mixed], f"{mixed}/*_label.tif") == [
        Pair(f"{mixed}/{name}.tif", f"{mixed}/{name}_label.tif") for name in ("a_1", "a_11", "b")
    ]
    assert pair_files([f"{images}/a*.tif"], f"{labels}/b.tif")[1].labels == f"{labels}/b.tif"
    with pytest.raises(InputError, match="name the same files"):
        pair_files([mixed], mixed)
    (tmp_path / "images" / "c.tif").touch()
    with pytest.raises(InputError, match="has no labels: none of the 3 files"):
        pair_files([images], labels)


def test_a_directory_with_one_file_of_labels_is_not_a_file_for_all(tmp_path):
    for name in ("images/tile_1.tif", "images/tile_1_2.tif", "labels/tile_1_2.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"tile_1\.tif has no labels"):
        pair_files([str(tmp_path / "images")], str(tmp_path / "labels"))


def test_a_file_is_the_same_however_its_path_is_written(tmp_path, monkeypatch):
    for name in ("a.tif", "a_label.tif", "b.tif", "b_label.tif"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    found = pair_files(["*.tif", f"{tmp_path}/a.tif"], f"{tmp_path}/*_label.tif")
    assert [pair.image for pair in found] == ["a.tif", "b.tif"]


def test_labels_in_the_same_directory_are_a_pair(tmp_path):
    for folder in ("east", "west"):
        (tmp_path / folder).mkdir()
        for name in ("scene.tif", "label.tif"):
            (tmp_path / folder / name).touch()
    scene = str(tmp_path / "east" / "scene.tif")
    assert pair_files([scene], f"{tmp_path}/*/label.tif") == [
        Pair(scene, str(tmp_path / "east" / "label.tif"))
    ]


def test_an_empty_glob_or_directory_is_refused(tmp_path):
    for path in (f"{tmp_path}/*.tif", str(tmp_path)):
        with pytest.raises(InputError):
            expand(path)


@pytest.mark.parametrize("name", ["", "*.tif"])
def test_a_directory_that_cannot_be_read_is_refused(tmp_path, monkeypatch, name):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", denied)  # permissions do not bind root
    with pytest.raises(InputError, match=r"cannot read the directory .*: Permission denied"):
        expand(str(tmp_path / name))


def test_a_glob_in_no_directory_says_so(tmp_path):
    with pytest.raises(InputError, match=r"cannot read the directory .*/no: No such file"):
        expand(f"{tmp_path}/no/*/*.tif")


def test_no_path_is_not_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tif").touch()
    with pytest.raises(InputError, match="a path is empty"):
        expand("")


def test_a_path_may_be_too_long_for_a_file():
    assert pair_files(["x" * 5000], "y" * 5000) == [Pair("x" * 5000, "y" * 5000)]


def test_a_glob_may_be_too_long_for_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no file matches"):
        expand("*" * 300)
    (tmp_path / "a.tif").touch()
    assert expand("*" * 300) == ["a.tif"]


def test_an_image_whose_labels_are_gone_is_closed(make_pair, monkeypatch):
    pair = make_pair(64, 64)
    dataset, opened = dataset_of(pair), []
    monkeypatch.setattr(
        dataset_module, "open_file", lambda path: opened.append(rasterio.open(path)) or opened[-1]
    )
    Path(pair.labels).unlink()
    with pytest.raises(InputError, match="cannot open the labels"):
        dataset.read(0, Window(0, 0, 8, 8))
    assert [file.closed for file in opened] == [True]


def test_options_of_vector_labels_are_not_ignored(make_pair):
    pair = make_pair(64, 64)
    for option in ({"class_field": "kind"}, {"outside": "unlabelled"}):
        with pytest.raises(OptionError, match=r"is for vector labels, but .*a_label\.tif"):
            prepare([pair.image], pair.labels, **option)


@pytest.mark.parametrize(
    ("fill", "message"),
    [(255, "no pixel of the images is labelled"), (1, "fewer than two classes: 1")],
)
def test_labels_to_learn_nothing_from_are_refused(make_raster, noise, fill, message):
    image = make_raster(noise(3, 64, 64), "a.tif")
    labels = make_raster(np.full((1, 64, 64), fill, np.uint8), "l.tif")
    with pytest.raises(InputError, match=message):
        prepare([image], labels)


def test_a_value_that_the_class_table_misses_is_refused_unless_ignored(make_pair, tmp_path):
    pair = make_pair(128, 128)
    (tmp_path / "c.csv").write_text("value,name\n0,a\n1,b\n3,d\n")
    with pytest.raises(InputError, match="values 0, 1, 2, 3, of which 2 is in no row"):
        prepare([pair.image], pair.labels, classes=str(tmp_path / "c.csv"))
    ground = prepare([pair.image], pair.labels, classes=str(tmp_path / "c.csv"), ignore=[2])
    labels = pixels_of(pair.labels)
    assert ground.pixels.sum(0).tolist() == [(labels == v).sum() for v in (0, 1, 3)]
    assert [c.id for c in ground.classes] == [0, 1, 3]


def test_a_raster_is_not_its_own_labels(tmp_path):
    for name in ("a.tif", "a_label.tif", "b.tif", "b.geojson"):
        (tmp_path / name).touch()
    for image, labels in (("a.tif", "a_label.tif"), ("b.tif", "b.geojson")):
        pair = Pair(str(tmp_path / image), str(tmp_path / labels))
        assert pair_files([pair.image], str(tmp_path)) == [pair]
