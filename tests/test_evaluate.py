"""Scores of masks on disk against scikit-learn and whole arrays."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize, shapes
from rasterio.transform import from_origin
from rasterio.warp import calculate_default_transform, reproject, transform_geom
from sklearn import metrics as sklearn

from fcntile.errors import InputError, OptionError, OutputError
from fcntile.evaluate import evaluate
from fcntile.predict import predict
from fcntile.raster.labels import RasterLabels
from fcntile.training.boundary import boundary_f1, boundary_matches
from fcntile.training.metrics import bootstrap, confusion_matrix, sums

DEMO = Path(__file__).parents[1] / "docs" / "demo"
TRUTH = str(DEMO / "philippines_1_label.tif")


def read(path):
    with rasterio.open(path) as raster:
        return raster.read(1)


@pytest.fixture(scope="module")
def demo_mask(tmp_path_factory):
    """Return the mask of the demo's orthophoto by the bundled model."""
    path = tmp_path_factory.mktemp("demo") / "mask.tif"
    predict(str(DEMO / "philippines_1.tif"), path, device="cpu")
    return str(path)


def patches(height, width, classes, seed=0):
    """Return patchy labels and a mask that is mostly right, uint8."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, classes, (height // 5 + 1, width // 5 + 1), np.uint8)
    labels = np.kron(coarse, np.ones((5, 5), np.uint8))[:height, :width]
    mask = np.where(random.random(labels.shape) < 0.1, 0, np.roll(labels, 1, axis=1))
    return labels, mask.astype(np.uint8)


# --- the scores -------------------------------------------------------------------------------


def test_scores_of_a_real_mask_are_those_of_scikit_learn(demo_mask):
    result = evaluate([demo_mask], TRUTH).as_dict()
    labels, ids = read(TRUTH).ravel(), read(demo_mask).ravel()
    assert result["confusion_matrix"] == sklearn.confusion_matrix(labels, ids).tolist()
    expected = {
        "miou": sklearn.jaccard_score(labels, ids, average="macro"),
        "fw_iou": sklearn.jaccard_score(labels, ids, average="weighted"),
        "pixel_accuracy": sklearn.accuracy_score(labels, ids),
        "mean_accuracy": sklearn.balanced_accuracy_score(labels, ids),
        "kappa": sklearn.cohen_kappa_score(labels, ids),
    }
    assert {name: result[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    of_classes = {
        "iou": sklearn.jaccard_score(labels, ids, average=None),
        "f1": sklearn.f1_score(labels, ids, average=None),
        "precision": sklearn.precision_score(labels, ids, average=None),
        "recall": sklearn.recall_score(labels, ids, average=None),
        "pixels": np.bincount(labels),
    }
    for name, scores in of_classes.items():
        assert [c[name] for c in result["classes"]] == pytest.approx(list(scores), abs=1e-12)
    assert [(c["value"], c["name"]) for c in result["classes"]] == [
        (0, "background"),
        (1, "building"),
    ]
    assert result["pixels"] == {"compared": 512 * 1024, "mask_nodata": 0, "unlabelled": 0}


def test_the_dictionary_holds_what_was_asked_for(demo_mask):
    plain = {"miou", "fw_iou", "pixel_accuracy", "mean_accuracy", "kappa"}
    plain |= {"classes", "confusion_matrix", "pixels"}
    assert evaluate([demo_mask], TRUTH).as_dict().keys() == plain
    more = evaluate([demo_mask], TRUTH, tolerance=2, bootstrap=10).as_dict()
    assert more.keys() == plain | {"boundary_f1", "intervals", "bootstrap"}
    assert more["boundary_f1"].keys() == {"tolerance", "mean"}
    assert [c.keys() - {"boundary_f1"} for c in more["classes"]] == [
        {"value", "name", "iou", "f1", "precision", "recall", "pixels"}
    ] * 2
    assert more["bootstrap"] == {"rounds": 10, "blocks": 8, "block_side": 256}
    json.dumps(more, allow_nan=False)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    rows=st.integers(1, 20),
    tolerance=st.sampled_from([0, 1, 1.5, 4, 12]),
    seed=st.integers(0, 99),
)
def test_rows_in_bands_score_as_the_whole_array(make_raster, height, width, rows, tolerance, seed):
    labels, mask = patches(height, width, 3, seed)
    random = np.random.default_rng(seed)
    labels[random.random(labels.shape) < 0.05] = 255
    mask[random.random(mask.shape) < 0.05] = 255
    labels[0, 0] = mask[0, 0] = 2  # so that there is something, of all three classes
    truth = make_raster(labels[None], "truth.tif")
    with mock.patch("fcntile.raster.comparison.ROWS", rows):
        result = evaluate([make_raster(mask[None])], truth, tolerance=tolerance)
    table = np.full(256, 65535, np.uint16)
    table[[c.id for c in result.classes]] = range(len(result.classes))
    arrays = table[labels], table[mask], len(result.classes)
    assert np.array_equal(result.confusion, confusion_matrix(*arrays))
    expected = boundary_f1(boundary_matches(*arrays, tolerance))
    np.testing.assert_array_equal(result.boundary_f1, expected)


def test_every_row_is_read_once(make_raster):
    labels, mask = patches(100, 30, 3)
    truth = make_raster(labels[None], "truth.tif")
    rows, read = [], RasterLabels.read

    def spy(self, window):
        rows.append((int(window.row_off), int(window.height)))
        return read(self, window)

    with (
        mock.patch("fcntile.raster.comparison.ROWS", 16),
        mock.patch.object(RasterLabels, "read", spy),
    ):
        evaluate([make_raster(mask[None], nodata=255)], truth, tolerance=5, classes=None)
    half = rows[len(rows) // 2 :]  # after the pass that looks for values
    expected = [(row, min(16, 100 - row)) for row in range(0, 100, 16)]
    assert half[::2] == half[1::2] == expected


def test_several_masks_are_scored_as_one(make_raster, tmp_path):
    both = [patches(50 + i, 40, 3, seed=i) for i in range(2)]
    for i, (labels, mask) in enumerate(both):
        make_raster(mask[None], f"area_{i}.tif")
        make_raster(labels[None], f"area_{i}_label.tif")
    labels, ids = (np.concatenate([a.ravel() for a in part]) for part in zip(*both, strict=True))
    result = evaluate([str(tmp_path / "area_?.tif")], str(tmp_path / "*_label.tif"), bootstrap=5)
    assert np.array_equal(result.confusion, sklearn.confusion_matrix(labels, ids))
    assert result.bootstrap.blocks == 2
    swapped = evaluate([str(tmp_path / f"area_{i}.tif") for i in (1, 0)], f"{tmp_path}/*_label.tif")
    assert np.array_equal(swapped.confusion, result.confusion)


def test_intervals_come_from_squares_of_ground(make_raster):
    """Blocks of 256 px; the lower right one has no labels and is not drawn."""
    labels, mask = patches(600, 500, 3)
    mask[:256, :256] = labels[:256, :256]  # one block is better than the others
    labels[512:, 256:] = 255
    truth = make_raster(labels[None], "truth.tif")
    blocks = [
        sums(confusion_matrix(labels[r : r + 256, c : c + 256], mask[r : r + 256, c : c + 256], 3))
        for r in (0, 256, 512)
        for c in (0, 256)
    ]
    expected = bootstrap(np.stack(blocks[:5], axis=1), 100, seed=3)
    for rows in (512, 100, 7):
        with mock.patch("fcntile.raster.comparison.ROWS", rows):
            result = evaluate([make_raster(mask[None])], truth, bootstrap=100, seed=3)
        assert result.bootstrap.blocks == 5
        assert result.bootstrap.intervals == expected
        for name, (low, high) in expected.items():
            assert low < getattr(result.scores, name) < high


def test_blocks_grow_so_that_they_are_about_400(make_raster):
    labels = np.zeros((1, 3000, 40), np.uint8)
    truth = make_raster(labels, "truth.tif")
    with mock.patch("fcntile.evaluate.MIN_BLOCK", 4):
        result = evaluate([make_raster(labels)], truth, bootstrap=1)
    assert result.bootstrap.side == 18
    assert 350 < result.bootstrap.blocks < 550


def test_progress_counts_rows(make_raster):
    labels, mask = patches(100, 30, 3)
    calls = []
    with mock.patch("fcntile.raster.comparison.ROWS", 40):
        evaluate(
            [make_raster(mask[None])],
            make_raster(labels[None], "truth.tif"),
            tolerance=3,
            progress=lambda *call: calls.append(call),
        )
    assert calls == [(36, 100), (76, 100), (100, 100)]


def test_rows_that_must_wait_for_their_margin_are_no_progress(make_raster):
    labels, mask = patches(100, 30, 3)
    calls = []
    with mock.patch("fcntile.raster.comparison.ROWS", 10):
        evaluate(
            [make_raster(mask[None])],
            make_raster(labels[None], "truth.tif"),
            tolerance=40,
            progress=lambda done, total: calls.append(done),
        )
    assert calls == [9, 19, 29, 39, 49, 100]


# --- what counts ------------------------------------------------------------------------------


def test_pixels_without_a_class_or_a_label_are_left_out(make_raster):
    mask = np.array([[[0, 1, 1, 9, 9, 1]]], np.uint8)
    labels = np.array([[[0, 1, 0, 1, 7, 7]]], np.uint8)
    result = evaluate([make_raster(mask, nodata=9)], make_raster(labels, "truth.tif", nodata=7))
    assert result.confusion.tolist() == [[1, 1], [0, 1]]
    assert result.as_dict()["pixels"] == {"compared": 3, "mask_nodata": 2, "unlabelled": 1}


def test_a_mask_band_says_where_a_mask_is(make_raster):
    mask = np.array([[[0, 1, 1, 0]]], np.uint8)
    path = make_raster(mask, mask=np.array([[255, 255, 0, 0]], np.uint8))
    result = evaluate([path], make_raster(mask, "truth.tif"))
    assert result.as_dict()["pixels"] == {"compared": 2, "mask_nodata": 2, "unlabelled": 0}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32])
def test_without_a_class_table_every_value_is_a_class_but_255(make_raster, dtype):
    mask = np.array([[[0, 3, 200, 255]]], dtype)
    labels = np.array([[[0, 3, 3, 3]]], np.uint8)
    result = evaluate([make_raster(mask)], make_raster(labels, "truth.tif"))
    assert [c.id for c in result.classes] == [0, 3, 200]
    assert result.confusion.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert result.mask_nodata == 1


def test_values_of_one_name_are_one_class(make_raster, tmp_path):
    table = tmp_path / "classes.csv"
    table.write_text("value,name\n1,road\n11,forest\n41,forest\n42,forest\n")
    mask = np.array([[[1, 11, 11, 11, 41]]], np.uint8)
    labels = np.array([[[1, 11, 41, 42, 1]]], np.uint8)
    files = make_raster(mask), make_raster(labels, "truth.tif")
    result = evaluate(files[:1], files[1], classes=table)
    assert [(c.id, c.name) for c in result.classes] == [(1, "road"), (11, "forest")]
    assert result.confusion.tolist() == [[1, 1], [0, 3]]
    # 11 is no label any more, but what the mask calls forest is forest still
    result = evaluate(files[:1], files[1], classes=table, ignore=[11])
    assert result.confusion.tolist() == [[1, 1], [0, 2]]


def test_ignored_values_are_no_labels_but_wrong_answers(make_raster):
    mask = np.array([[[0, 1, 2, 2, 2, 1]]], np.uint8)
    labels = np.array([[[0, 1, 2, 1, 0, 2]]], np.uint8)
    files = make_raster(mask), make_raster(labels, "truth.tif")
    result = evaluate(files[0], files[1], ignore=[2], tolerance=1, bootstrap=5)
    assert result.confusion.tolist() == [[1, 0, 1], [0, 1, 1], [0, 0, 0]]
    assert result.as_dict()["pixels"] == {"compared": 4, "mask_nodata": 0, "unlabelled": 2}
    counted = labels.ravel() != 2
    expected = sklearn.jaccard_score(
        labels.ravel()[counted], mask.ravel()[counted], labels=[0, 1], average=None
    )
    np.testing.assert_array_equal(result.scores.iou, [*expected, np.nan])
    assert result.scores.miou == expected.mean() == 0.5
    assert result.scores.pixel_accuracy == 0.5
    assert np.isnan(result.boundary_f1[2])


def test_an_undefined_score_is_null(make_raster):
    mask = np.zeros((1, 2, 2), np.uint8)
    result = evaluate([make_raster(mask)], make_raster(mask, "truth.tif"), tolerance=1).as_dict()
    assert result["kappa"] is None
    assert result["boundary_f1"]["mean"] is None
    assert result["miou"] == 1


def test_names_that_contradict_are_remarked_on(make_raster, caplog):
    pixels = np.array([[[0, 1]]], np.uint8)
    mask, truth = make_raster(pixels), make_raster(pixels, "truth.tif")
    for path, names in ((mask, ("Ground", "roof")), (truth, ("ground", "water"))):
        with rasterio.open(path, "r+") as raster:
            raster.update_tags(1, **{f"CLASS_{i}": name for i, name in enumerate(names)})
    with caplog.at_level(logging.WARNING):
        result = evaluate([mask], truth)
    assert [c.name for c in result.classes] == ["Ground", "roof"]
    assert [r.getMessage() for r in caplog.records] == [f"1 is 'water' in {truth}, but 'roof' here"]


# --- labels from elsewhere --------------------------------------------------------------------


def write_labels(path, pixels, crs, transform, **profile):
    height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=1, dtype=pixels.dtype,
        crs=crs, transform=transform, **profile,
    ) as raster:  # fmt: skip
        raster.write(pixels, 1)
    return str(path)


@pytest.mark.parametrize("crs", ["EPSG:32651", "EPSG:4326", "EPSG:3857"])
def test_labels_on_another_grid_score_as_if_warped_first(demo_mask, tmp_path, crs):
    with rasterio.open(TRUTH) as truth, rasterio.open(demo_mask) as like:
        transform, width, height = calculate_default_transform(
            truth.crs, crs, truth.width - 100, truth.height // 2, *truth.bounds
        )
        pixels = np.full((height, width), 255, np.uint8)
        reproject(
            rasterio.band(truth, 1), pixels, dst_transform=transform, dst_crs=crs, dst_nodata=255
        )
        elsewhere = write_labels(tmp_path / "utm.tif", pixels, crs, transform, nodata=255)
        on_grid = np.full(like.shape, 255, np.uint8)
        with rasterio.open(elsewhere) as labels:
            reproject(
                rasterio.band(labels, 1),
                on_grid,
                dst_transform=like.transform,
                dst_crs=like.crs,
                dst_nodata=255,
            )
        warped = write_labels(
            tmp_path / "warped.tif", on_grid, like.crs, like.transform, nodata=255
        )
    assert 0.8 < evaluate([demo_mask], TRUTH).scores.miou < 0.9
    result = evaluate([demo_mask], elsewhere)
    expected = evaluate([demo_mask], warped)
    # GDAL approximates curved grids piece by piece; another version may cut other pieces
    moved = np.abs(result.confusion - expected.confusion).sum()
    assert moved <= 1e-5 * expected.compared
    assert result.compared > 500_000


def features(pixels, transform, crs, name=None):
    """Return GeoJSON of the areas of ones."""
    areas = shapes(pixels, mask=pixels == 1, transform=transform)
    found = [
        {"type": "Feature", "geometry": g, "properties": {"type": name} if name else {}}
        for g, _ in areas
    ]
    crs = {"type": "name", "properties": {"name": crs}}
    return json.dumps({"type": "FeatureCollection", "crs": crs, "features": found})


def test_vector_labels_score_as_the_raster_they_outline(demo_mask, tmp_path):
    with rasterio.open(TRUTH) as truth:
        transform = truth.transform
        expected = evaluate([demo_mask], TRUTH, tolerance=2)
    path = tmp_path / "truth.geojson"
    path.write_text(features(read(TRUTH), transform, "EPSG:3857"))
    with mock.patch("fcntile.raster.comparison.ROWS", 100):
        result = evaluate([demo_mask], str(path), tolerance=2)
    assert np.array_equal(result.confusion, expected.confusion)
    assert np.array_equal(result.boundary_f1, expected.boundary_f1)
    only = evaluate([demo_mask], str(path), outside="unlabelled")
    assert only.confusion.tolist() == [[0, 0], expected.confusion[1].tolist()]


def test_vector_labels_in_another_crs_score_as_if_burned_first(demo_mask, tmp_path):
    """The areas turn by a little in UTM, so that pixels on their edges change sides."""
    with rasterio.open(TRUTH) as truth:
        outlines = shapes(read(TRUTH), mask=read(TRUTH) == 1, transform=truth.transform)
        areas = [transform_geom(truth.crs, "EPSG:32651", g) for g, _ in outlines]
        back = transform_geom("EPSG:32651", truth.crs, areas)
        burned = rasterize([(g, 1) for g in back], truth.shape, transform=truth.transform)
        grid = truth.crs, truth.transform
    found = [{"type": "Feature", "geometry": g, "properties": {}} for g in areas]
    crs = {"type": "name", "properties": {"name": "EPSG:32651"}}
    path = tmp_path / "utm.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": found}))
    expected = evaluate([demo_mask], write_labels(tmp_path / "burned.tif", burned, *grid))
    assert np.array_equal(evaluate([demo_mask], str(path)).confusion, expected.confusion)


def test_names_of_features_are_those_of_the_mask(demo_mask, tmp_path, make_raster):
    with rasterio.open(TRUTH) as truth:
        transform = truth.transform
    path = tmp_path / "truth.geojson"
    path.write_text(features(read(TRUTH), transform, "EPSG:3857", "building"))
    named = evaluate([demo_mask], str(path), class_field="type")
    assert np.array_equal(named.confusion, evaluate([demo_mask], TRUTH).confusion)
    # a mask without names does not say what a building is, and nobody guesses
    bare = make_raster(read(demo_mask)[None], crs="EPSG:3857", transform=transform)
    with pytest.raises(InputError, match="building is in no row of the class table"):
        evaluate([bare], str(path), class_field="type")
    path.write_text(features(read(TRUTH), transform, "EPSG:3857", "tower"))
    with pytest.raises(InputError, match="tower is in no row of the class table"):
        evaluate([demo_mask], str(path), class_field="type")


# --- what is refused --------------------------------------------------------------------------


def test_values_that_are_no_class_are_listed(make_raster, demo_mask, tmp_path):
    table = tmp_path / "classes.csv"
    table.write_text("value,name\n0,ground\n1,roof\n")
    good, bad = np.zeros((1, 30, 2), np.uint8), np.zeros((1, 30, 2), np.uint8)
    bad[0, 20:] = (5, 6)
    good, bad = make_raster(good, "good.tif"), make_raster(bad, "bad.tif")
    with mock.patch("fcntile.raster.comparison.ROWS", 8):
        for pair in ((good, bad), (bad, good)):
            with pytest.raises(InputError, match=r"bad.tif has the values 0, 5, 6, of which 5, 6"):
                evaluate([pair[0]], pair[1], classes=table)
        result = evaluate([bad], good, classes=table, ignore=[5, 6])
    assert result.mask_nodata == 20


@pytest.mark.parametrize(
    ("pixels", "profile", "words"),
    [
        (np.zeros((3, 4, 4), np.uint8), {}, "3 bands, a mask has one"),
        (np.zeros((1, 4, 4), np.float32), {}, "float32, a mask has whole numbers"),
        (
            np.full((1, 4, 4), -1, np.int16),
            {},
            "from -1 to -1 in the mask .* are no classes",
        ),
        (np.full((1, 4, 4), 255, np.uint8), {}, "nothing to compare: of 16 pixels 16 have no"),
        (np.full((1, 4, 4), 8, np.uint8), {"nodata": 8}, "nothing to compare"),
        (np.zeros((1, 4, 4), np.uint8), {"crs": "EPSG:32601"}, "do not lie on"),
        (np.arange(2000, dtype=np.uint16).reshape(1, 40, 50), {}, "2000 classes are more than"),
    ],
)
def test_what_is_no_mask_is_refused(make_raster, pixels, profile, words):
    truth = make_raster(pixels[:1].astype(np.uint16) * 0, "truth.tif")
    with pytest.raises(InputError, match=words):
        evaluate([make_raster(pixels, "mask.tif", **profile)], truth)


def test_options_that_make_no_sense_are_refused(demo_mask, tmp_path):
    for options in ({"ignore": [-1]}, {"tolerance": 101}, {"tolerance": np.nan}, {"bootstrap": -1}):
        with pytest.raises(OptionError, match=next(iter(options))):
            evaluate([demo_mask], TRUTH, **options)
    (tmp_path / "empty.csv").write_text("value,name\n")
    with pytest.raises(InputError, match="has no class"):
        evaluate([demo_mask], TRUTH, classes=tmp_path / "empty.csv")


def test_a_plot_never_replaces_an_input(demo_mask, make_raster):
    path = make_raster(read(demo_mask)[None], "mask.png")
    with pytest.raises(OutputError, match="is an input"):
        evaluate([path], TRUTH, plot=path, overwrite=True)


# --- memory and start-up ----------------------------------------------------------------------

MEASURE = """
import sys
from pathlib import Path
from fcntile.evaluate import evaluate
evaluate([sys.argv[1]], sys.argv[2], tolerance=3, bootstrap=10)
assert "torch" not in sys.modules and "matplotlib" not in sys.modules
status = Path("/proc/self/status").read_text()  # getrusage knows the peak of who started us, too
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def peak_rss(mask, labels):
    run = [sys.executable, "-c", MEASURE, mask, labels]
    small = os.environ | {"GDAL_CACHEMAX": "2"}  # MB; else GDAL's cache would hold these files
    return int(subprocess.run(run, env=small, capture_output=True, text=True, check=True).stdout)


def test_memory_does_not_grow_with_height_and_torch_stays_out(tmp_path):
    peaks = []
    for height in (2048, 16_384):
        for name in ("mask", "truth"):
            where = {"crs": "EPSG:32637", "transform": from_origin(5e5, 9e6, 1, 1)}
            shape = {"width": 1024, "height": height, "count": 1, "dtype": "uint8"}
            with rasterio.open(
                tmp_path / f"{name}_{height}.tif", "w", driver="GTiff", sparse_ok=True, tiled=True,
                **shape, **where,
            ):  # fmt: skip
                pass  # all zeros
        files = (str(tmp_path / f"{name}_{height}.tif") for name in ("mask", "truth"))
        peaks.append(peak_rss(*files))
    whole = 16_384 * 1024 / 1024  # KiB of the higher mask alone
    assert peaks[1] - peaks[0] < whole / 3
