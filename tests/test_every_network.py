"""Every network through the command line: train, then predict on a raster of another size."""

import json

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner
from nets import NETWORKS, THIN

from fcntile.cli.main import main
from fcntile.models.model_file import load_model

DEMO = "docs/demo/philippines_1.tif", "docs/demo/philippines_1_label.tif"


def fcntile(*arguments, code=0):
    done = CliRunner().invoke(main, [*map(str, arguments)])
    assert done.exit_code == code, done.output
    return done


def options_of(name):
    return [f"--arch-option={key}={json.dumps(value)}" for key, value in THIN[name].items()]


def untiled_mask(model, pixels, side):
    """Return the best classes of a raster completed by reflection, in one forward pass."""
    height, width = pixels.shape[1:]
    x = np.pad(pixels, [(0, 0), (0, side - height), (0, side - width)], mode="reflect")
    mean, std = (
        np.array([getattr(band, name) for band in model.card.bands], np.float32)[:, None, None]
        for name in ("mean", "std")
    )
    with torch.no_grad():
        logits = model.net(torch.from_numpy((x - mean) / std)[None])[0]
    best = logits[:, :height, :width].topk(2, dim=0)
    return best.indices[0].numpy(), (best.values[0] - best.values[1]).numpy()


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
    path, mask = tmp_path / "m.safetensors", tmp_path / "mask.tif"
    trained = fcntile(
        *("train", *DEMO, "-o", path, "--arch", name, *options_of(name), "--steps", 20),
        *("--window", THIN[name].get("size", 64), "--batch-size", 4, "--val-every", 10, "--json"),
    )
    summary = json.loads(trained.stdout)
    assert summary["arch"] == name
    assert 0 < summary["val"]["miou"] <= 1
    model = load_model(path)
    is_any_tile = not (model.net.size or model.net.is_tile_bound)
    fcntile("predict", raster, "-o", mask, "--model", path, *(["--tile", 704] * is_any_tile))
    with rasterio.open(raster) as given, rasterio.open(mask) as out:
        found = out.read(1)
        assert out.shape == (700, 513)
        if is_any_tile:
            expected, margin = untiled_mask(model, given.read(), 704)
            assert not ((found != expected) & (margin > 1e-3 * margin.max())).any()


def test_a_net_of_one_size_says_so_and_works(raster, tmp_path, caplog):
    model, mask = tmp_path / "m.safetensors", tmp_path / "mask.tif"
    command = ["train", *DEMO, "-o", model, "--arch", "mirror-vgg-thread", "--steps", 2]
    command += [*options_of("mirror-vgg-thread"), "--batch-size", 2]
    fcntile(*command, "--window", 64)
    assert "takes tiles of 64 px only" in caplog.text
    fcntile("predict", raster, "-o", mask, "--model", model)
    refused = fcntile(*command, "--window", 128, "--overwrite", code=2)
    assert "windows of 64 px only, not 128" in refused.stderr
    refused = fcntile(
        "predict", raster, "-o", mask, "--model", model, "--tile", 128, "--overwrite", code=2
    )
    assert "tiles of 64 px only, not 128" in refused.stderr


def test_a_net_bound_to_its_tile_predicts_in_its_training_windows(raster, tmp_path, caplog):
    """DeconvNet's fc6 has no padding: its decoder adds up more values in a larger tile."""
    model, mask = tmp_path / "m.safetensors", tmp_path / "mask.tif"
    command = ["train", *DEMO, "-o", model, "--arch", "deconvnet", *options_of("deconvnet")]
    fcntile(*command, "--steps", 2, "--batch-size", 2, "--window", 96)
    said = fcntile("predict", raster, "-o", mask, "--model", model, "--json")
    assert json.loads(said.stdout)["tiles"] == 11 * 8  # of 96 px, every 64 px
    assert "its training" not in caplog.text
    fcntile("predict", raster, "-o", mask, "--model", model, "--tile", 256, "--overwrite")
    assert "other values in tiles of 256 px than in the 96 px of its training" in caplog.text
