"""`fcntile inspect` as it is typed, in a process of its own."""

import json
from functools import partial

import pytest
from program import WITHOUT_MATPLOTLIB, assert_refused, fcntile
from skimage.io import imread

inspect = partial(fcntile, "inspect")


@pytest.fixture
def model(make_model):
    options = {"width": 2, "head": 4, "batch_norm": True}
    return make_model("fcn2s-small", arch_options=options, tile=64, overlap=16)


@pytest.fixture
def image(make_raster, noise):
    return make_raster(noise(3, 80, 120))


def test_a_line_is_printed(model, image, tmp_path):
    run = inspect(model, image, "-o", tmp_path / "maps.png", "--maps", "2", "--threads", "1")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("effective receptive field ")
    assert "theoretical " in run.stdout
    assert "recommended overlap " in run.stdout
    assert run.stdout.endswith("the card's overlap 16 px\n")
    assert run.stdout.count("\n") == 1
    assert imread(tmp_path / "maps.png").shape[2] >= 3


def test_the_summary_is_json_on_stdout(model, image, tmp_path):
    out = tmp_path / "maps.png"
    run = inspect(
        model, image, "-o", out, "--window", "16,8,64,32", "--json", "--threads", "1", "--maps=1"
    )
    summary = json.loads(run.stdout)
    assert summary.keys() == {
        "output",
        "model",
        "window",
        "stages",
        "effective_field_95",
        "effective_field_99",
        "receptive_field",
        "field_window",
        "recommended_overlap",
        "full_overlap",
        "overlap",
        "tile",
    }
    assert summary["window"] == [16, 8, 64, 32]
    assert summary["stages"][-1] == {
        "name": "upscore",
        "channels": 3,
        "height": 32,
        "width": 64,
        "stride": 1,
    }
    again = inspect(model, image, "-o", out)
    assert_refused(again, 6, "exists: use --overwrite")


@pytest.mark.parametrize(
    ("args", "exit_code", "words"),
    [
        (["--window", "100,0,64,64"], 2, ["not inside the raster, which is 120 px x 80 px"]),
        (["--window", "0,0,30,30"], 2, ["multiples of its stride, 4 px, such as 28 x 28"]),
        (["--window", "0,0,64"], 2, ["'0,0,64' is not COL,ROW,WIDTH,HEIGHT"]),
        (["--window", f"0,0,64,{'9' * 5000}"], 2, ["is not COL,ROW,WIDTH,HEIGHT"]),
        (["-b", "1", "-b", "2"], 3, ["--bidx chooses 2", "wants 3"]),
        (["--maps", "0"], 2, ["--maps"]),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(model, image, tmp_path, args, exit_code, words):
    run = inspect(model, image, "-o", tmp_path / "maps.png", *args)
    assert_refused(run, exit_code, *words)
    assert not (tmp_path / "maps.png").exists()


def test_other_names_are_refused(model, image, tmp_path):
    assert_refused(inspect(model, image, "-o", tmp_path / "maps.gif"), 2, ".png, .pdf, .svg")
    assert_refused(inspect("roofs", image, "-o", tmp_path / "maps.png"), 4, "no model file roofs")


def test_without_matplotlib_it_is_said_what_to_install(model, image, tmp_path):
    run = inspect(model, image, "-o", tmp_path / "maps.png", start=WITHOUT_MATPLOTLIB)
    assert_refused(run, 2, "matplotlib", "pip install 'fcntile[plot]'")
