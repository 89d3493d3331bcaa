"""Every network through the command line: train, then predict on a raster of another size."""

import json
import subprocess
import sys

import numpy as np
import pytest
import rasterio
from nets import NETWORKS, THIN

DEMO = "docs/demo/philippines_1.tif", "docs/demo/philippines_1_label.tif"


def fcntile(*arguments):
    command = [sys.executable, "-m", "fcntile", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def options_of(name):
    return [f"--arch-option={key}={json.dumps(value)}" for key, value in THIN[name].items()]


@pytest.fixture(scope="module")
def raster(tmp_path_factory):
    """Return a raster of 700 x 513 px out of the demo's orthophoto."""
    path = tmp_path_factory.mktemp("raster") / "raster.tif"
    with rasterio.open(DEMO[0]) as demo:
        pixels = np.tile(demo.read(), (1, 2, 2))[:, :700, :513]
        profile = {**demo.profile, "height": 700, "width": 513}
    with rasterio.open(path, "w", **profile) as out:
        out.write(pixels)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_it_trains_and_predicts(name, raster, tmp_path):
    model, mask = tmp_path / "m.safetensors", tmp_path / "mask.tif"
    size = THIN[name].get("size", 64)
    trained = fcntile(
        *("train", *DEMO, "-o", model, "--arch", name, *options_of(name), "--steps", 20),
        *("--window", size, "--batch-size", 4, "--val-every", 10, "--json"),
    )
    summary = json.loads(trained.stdout)
    assert summary["arch"] == name
    assert np.isfinite(summary["loss"])
    assert 0 <= summary["val"]["miou"] <= 1
    fcntile("predict", raster, "-o", mask, "--model", model)
    with rasterio.open(mask) as out:
        assert out.shape == (700, 513)
        assert set(np.unique(out.read(1))) <= {0, 1, 255}


def test_a_net_of_one_size_says_so_and_works(raster, tmp_path):
    model, mask = tmp_path / "m.safetensors", tmp_path / "mask.tif"
    command = ["train", *DEMO, "-o", model, "--arch", "mirror-vgg-thread", "--steps", 2]
    command += [*options_of("mirror-vgg-thread"), "--batch-size", 2]
    trained = fcntile(*command, "--window", 64)
    assert "takes tiles of 64 px only" in trained.stderr
    fcntile("predict", raster, "-o", mask, "--model", model)
    for refused, words in (
        ([*command, "--window", 128, "--overwrite"], "windows of 64 px only, not 128"),
        (["predict", raster, "-o", mask, "--model", model, "--tile", 128, "--overwrite"], "64 px"),
    ):
        arguments = [sys.executable, "-m", "fcntile", *map(str, refused)]
        done = subprocess.run(arguments, capture_output=True, text=True)
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_a_net_bound_to_its_tile_predicts_in_its_training_windows(raster, tmp_path):
    """DeconvNet's fc6 has no padding: its decoder adds up more values in a larger tile."""
    model, mask = tmp_path / "m.safetensors", tmp_path / "mask.tif"
    command = ["train", *DEMO, "-o", model, "--arch", "deconvnet", *options_of("deconvnet")]
    fcntile(*command, "--steps", 2, "--batch-size", 2, "--window", 96)
    said = fcntile("predict", raster, "-o", mask, "--model", model, "--json")
    assert json.loads(said.stdout)["tiles"] == 11 * 8  # of 96 px, every 64 px
    assert "its training" not in said.stderr
    said = fcntile("predict", raster, "-o", mask, "--model", model, "--tile", 256, "--overwrite")
    assert "other values in tiles of 256 px than in the 96 px of its training" in said.stderr
