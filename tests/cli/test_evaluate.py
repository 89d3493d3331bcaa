"""`fcntile evaluate` as it is typed, in a process of its own."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
from program import WITHOUT_MATPLOTLIB, assert_refused, fcntile

DEMO = Path(__file__).parents[2] / "docs" / "demo"
TRUTH = DEMO / "philippines_1_label.tif"
evaluate = partial(fcntile, "evaluate")


@pytest.fixture
def mask(make_raster):
    """Return a mask of 4 x 5 px: 8 background, 8 roof, 4 without data."""
    pixels = np.repeat(np.array([[0, 0, 1, 1, 255]], np.uint8), 4, axis=0)
    path = make_raster(pixels[None], "mask.tif", nodata=255)
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(1, CLASS_0="background", CLASS_1="roof")
    return path


@pytest.fixture
def truth(make_raster):
    """Return labels of 4 x 5 px: the mask's, but for a column that is roof; 4 are unlabelled."""
    pixels = np.repeat(np.array([[0, 1, 1, 1, 1]], np.uint8), 4, axis=0)
    pixels[3, :4] = 255
    return make_raster(pixels[None], "truth.tif")


def test_a_table_is_printed(mask, truth):
    run = evaluate(mask, truth)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines() == [
        "value  class          IoU      F1  precision  recall  pixels",
        "    0  background  0.5000  0.6667     0.5000  1.0000       3",
        "    1  roof        0.6667  0.8000     1.0000  0.6667       9",
        "",
        "mean IoU                0.5833",
        "frequency-weighted IoU  0.6250",
        "pixel accuracy          0.7500",
        "mean accuracy           0.8333",
        "kappa                   0.5000",
        "",
        "pixels compared              12",
        "without a class in the mask   4",
        "without a label               4",
    ]


def test_boundaries_and_intervals_are_printed_when_asked_for(mask, truth):
    run = evaluate(mask, truth, "--tolerance", "1.5", "--bootstrap", 10)
    lines = run.stdout.splitlines()
    assert lines[0].split()[-4:] == ["recall", "boundary", "F1", "pixels"]
    assert "95 % over 1 blocks of 256 px" in lines[4]
    assert lines[5].split() == ["mean", "IoU", "0.5833", "0.5833", "to", "0.5833"]
    assert lines[10].split()[:-1] == ["mean", "boundary", "F1", "(1.5", "px)"]
    assert run.stderr == "WARNING: the intervals rest on 1 block(s) of ground only\n"


def test_json_is_one_object_on_stdout(mask, truth):
    run = evaluate(mask, truth, "--json", "--tolerance", 1, "--bootstrap", 10, "--seed", 3)
    result = json.loads(run.stdout)
    assert run.stdout.count("\n") == 1
    assert result["confusion_matrix"] == [[3, 0], [3, 6]]
    assert result["pixels"] == {"compared": 12, "mask_nodata": 4, "unlabelled": 4}
    assert result["classes"][1]["name"] == "roof"
    assert result["intervals"]["miou"] == pytest.approx([7 / 12, 7 / 12])
    assert result["bootstrap"]["rounds"] == 10
    assert result["boundary_f1"]["tolerance"] == 1


def test_several_masks_share_labels_and_options_reach_them(mask, truth, tmp_path):
    (tmp_path / "classes.json").write_text('{"0": "all", "1": "all", "3": "none"}')
    run = evaluate(mask, mask, truth, "--json", "--classes", tmp_path / "classes.json")
    assert json.loads(run.stdout)["confusion_matrix"] == [[12, 0], [0, 0]]  # the same mask once
    run = evaluate(mask, truth, "--json", "--ignore", 0, "--ignore", 3)
    assert json.loads(run.stdout)["confusion_matrix"] == [[0, 0], [3, 6]]


def test_options_of_vector_labels_reach_them(mask, tmp_path):
    with rasterio.open(mask) as raster:
        left, bottom, right, top = raster.bounds
    middle = left + (right - left) * 3 / 5
    ring = [[left, bottom], [middle, bottom], [middle, top], [left, top], [left, bottom]]
    area = {"type": "Polygon", "coordinates": [ring]}
    crs = {"type": "name", "properties": {"name": "EPSG:32637"}}
    feature = {"type": "Feature", "geometry": area, "properties": {"kind": "roof"}}
    path = tmp_path / "truth.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]}))
    for outside, expected in (("unlabelled", [[0, 0], [8, 4]]), ("background", [[0, 4], [8, 4]])):
        run = evaluate(mask, path, "--json", "--class-field", "kind", "--outside", outside)
        assert json.loads(run.stdout)["confusion_matrix"] == expected
    assert_refused(evaluate(mask, path, "--class-field", "no"), 3, "field no", "kind")


def test_progress_is_json_lines_on_stderr(mask, truth):
    run = evaluate(mask, truth, "--progress", "json")
    events = [json.loads(line) for line in run.stderr.splitlines()]
    assert (events[-1]["done"], events[-1]["total"]) == (4, 4)


def test_the_confusion_matrix_is_drawn(mask, truth, tmp_path):
    before = {p.name for p in tmp_path.iterdir()}
    for name in ("c.png", "c.pdf", "c.svg"):
        assert evaluate(mask, truth, "--plot", tmp_path / name).stderr == ""
    assert {p.name for p in tmp_path.iterdir()} == before | {"c.png", "c.pdf", "c.svg"}
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "c.pdf").read_bytes().startswith(b"%PDF")
    assert "roof" in (tmp_path / "c.svg").read_text()  # as a comment beside its outlines
    run = evaluate(mask, truth, "--plot", tmp_path / "c.png")
    assert_refused(run, 6, "c.png exists", "--overwrite")
    run = evaluate(mask, truth, "--plot", tmp_path / "c.png", "--overwrite")
    assert run.returncode == 0


def test_a_dollar_in_a_class_name_is_no_formula(mask, truth, tmp_path):
    (tmp_path / "classes.json").write_text('{"0": "$_{1}$ $", "1": "a\\\\b$^"}')
    options = ["--classes", tmp_path / "classes.json", "--plot", tmp_path / "c.png"]
    run = evaluate(mask, truth, *options)
    assert (run.returncode, run.stderr) == (0, "")


def test_without_matplotlib_a_plot_is_refused_and_all_else_works(mask, truth, tmp_path):
    run = evaluate(mask, truth, "--plot", tmp_path / "c.png", start=WITHOUT_MATPLOTLIB)
    assert_refused(run, 2, "pip install 'fcntile[plot]'")
    assert evaluate(mask, truth, start=WITHOUT_MATPLOTLIB).returncode == 0


def test_what_cannot_be_compared_is_refused(mask, truth, make_raster, tmp_path):
    zeros = np.zeros((1, 4, 5), np.uint8)
    notes = tmp_path / "notes.tif"
    notes.write_text("These are notes.\n")
    for arguments, words in (
        ((tmp_path / "missing.tif", truth), ["cannot open", "missing.tif"]),
        ((mask, tmp_path / "missing.tif"), ["cannot open the labels", "missing.tif"]),
        ((notes, truth), ["cannot open", "notes.tif"]),
        ((mask, notes), ["cannot open the labels", "notes.tif"]),
        ((tmp_path / "*.jpg", truth), ["no file matches"]),
        ((make_raster(np.repeat(zeros, 3, 0), "rgb.tif"), truth), ["3 bands"]),
        ((make_raster(zeros.astype(np.float32), "float.tif"), truth), ["float32"]),
        (
            (mask, make_raster(zeros + 7, "sevens.tif")),
            ["has the values 7", "--classes", "--ignore"],
        ),
        ((make_raster(zeros + 255, "none.tif"), truth), ["nothing to compare"]),
        ((mask, make_raster(zeros, "far.tif", crs="EPSG:32601")), ["do not lie on"]),
        ((mask, truth, "--classes", notes), ["class table", "notes.tif"]),
    ):
        assert_refused(evaluate(*arguments), 3, *words)


def test_a_bad_option_is_a_usage_error(mask, truth, tmp_path):
    for arguments, words in (
        ((mask,), ["Missing argument"]),
        ((mask, truth, "--tolerance", "-1"), ["--tolerance"]),
        ((mask, truth, "--ignore", "70000"), ["--ignore"]),
        ((mask, truth, "--outside", "beyond"), ["--outside"]),
        ((mask, truth, "--bootstrap", "many"), ["--bootstrap"]),
        ((mask, truth, "--plot", tmp_path / "c.docx"), ["c.docx", ".png"]),
    ):
        assert_refused(evaluate(*arguments), 2, *words)
    assert_refused(evaluate(mask, truth, "--plot", tmp_path / "no" / "c.png"), 6, "does not exist")
