"""`fcntile import`, and `fcntile train --init-weights`, as they are typed."""

import json

import numpy as np
import pytest
import rasterio
import torch
from program import assert_refused, fcntile
from rasterio.enums import ColorInterp
from safetensors.torch import load_file
from vgg import CAFFE_BGR_MEAN, fcn, random_head, random_vgg, sequential

from fcntile.models.model_file import load_model

RGB = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]


@pytest.fixture(scope="module")
def pixels():
    """Return (3, 96, 64) uint8 in squares, red, green, blue."""
    values = np.random.default_rng(0).integers(0, 256, (3, 12, 8), np.uint8)
    return np.kron(values, np.ones((8, 8), np.uint8))


def caffe_scores(weights, pixels, pad):
    """Return (classes, H, W): what Caffe would compute of a picture completed by reflection."""
    padded = np.pad(pixels, ((0, 0), (0, 0), (0, 32)), mode="reflect")  # to one tile
    bgr = padded[::-1] - CAFFE_BGR_MEAN[:, None, None]
    return fcn(weights, torch.from_numpy(bgr.astype("f4"))[None], pad)[0, :, :96, :64]


@pytest.fixture(scope="module")
def caffe_fcn(tmp_path_factory, pixels):
    """Return an FCN-8s as torch has it from Caffe, and its file."""
    weights = {**random_vgg(gain=0.9), **random_head(21, 2)}
    weights["score_fr.bias"] -= caffe_scores(weights, pixels, 1).mean((1, 2))  # no class rules
    path = tmp_path_factory.mktemp("fcn") / "fcn8s_from_caffe.pth"
    torch.save(weights, path)
    return weights, path


def test_an_imported_fcn_makes_the_mask_that_its_own_framework_would(
    caffe_fcn, pixels, make_raster, tmp_path
):
    weights, path = caffe_fcn
    model, mask = tmp_path / "voc.safetensors", tmp_path / "mask.tif"
    run = fcntile("import", path, "-o", model, "--licence", "CC0-1.0", "--name", "voc")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    image = make_raster(pixels, colorinterp=RGB)
    sizes = ["--tile", 96, "--overlap", 0]
    run = fcntile("predict", image, "-o", mask, "--model", model, *sizes, "--device", "cpu")
    assert (run.returncode, run.stderr) == (0, "")
    card = load_model(model).card
    assert (card.name, card.licence, card.training["source"]) == (
        "voc",
        "CC0-1.0",
        "FCN of torch, from Caffe",
    )
    scores = caffe_scores(weights, pixels, 100 if "padding" in card.arch_options else 1)
    best, second = scores.topk(2, 0).values
    is_clear = (best - second > 1e-4 * scores.abs().max()).numpy()
    assert is_clear.mean() > 0.99
    with rasterio.open(mask) as file:
        found = file.read(1)
        assert file.tags(1)["CLASS_15"] == "person"
        assert file.colormap(1)[15][:3] == (192, 128, 128)
    assert len(np.unique(found)) > 10
    assert (found == scores.argmax(0).numpy())[is_clear].all()


def test_the_summary_says_what_the_file_is(caffe_fcn, tmp_path):
    run = fcntile("import", caffe_fcn[1], "-o", tmp_path / "voc.safetensors", "--json")
    summary = json.loads(run.stdout)
    assert summary.keys() == {
        "source",
        "arch",
        "arch_options",
        "parameters",
        "bands",
        "classes",
        "output",
    }
    assert (summary["source"], summary["arch"]) == ("FCN of torch, from Caffe", "fcn8s")
    assert [band["name"] for band in summary["bands"]] == ["red", "green", "blue"]
    assert [band["mean"] for band in summary["bands"]] == list(CAFFE_BGR_MEAN[::-1])
    assert summary["classes"]["15"] == "person"
    assert load_model(summary["output"]).card.arch == "fcn8s"


def test_classes_of_one_s_own_are_taken_from_a_table(caffe_fcn, tmp_path):
    rows = ["value,name,color", *(f"{2 * i},class {i},#0000{i:02x}" for i in range(21))]
    (tmp_path / "classes.csv").write_text("\n".join(rows))
    model, table = tmp_path / "m.safetensors", ["--classes", tmp_path / "classes.csv"]
    assert fcntile("import", caffe_fcn[1], "-o", model, *table).returncode == 0
    card = load_model(model).card
    assert (card.values[20], card.classes[20].color) == (40, "#000014")
    (tmp_path / "classes.csv").write_text("\n".join(rows[:-1]))
    run = fcntile("import", caffe_fcn[1], "-o", model, *table, "--overwrite")
    assert_refused(run, 4, "scores 21 classes, the table has 20")


def test_a_mistake_is_a_sentence_and_an_exit_code(caffe_fcn, tmp_path):
    output = tmp_path / "m.safetensors"
    assert_refused(fcntile("import", tmp_path / "no.pth", "-o", output), 4, "cannot read")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html>")
    assert_refused(fcntile("import", tmp_path / "page.pth", "-o", output), 4, "no file of weights")
    assert not output.exists()
    output.write_text("precious")
    assert_refused(fcntile("import", caffe_fcn[1], "-o", output), 6, "--overwrite")
    run = fcntile("import", caffe_fcn[1], "-o", caffe_fcn[1], "--overwrite")
    assert_refused(run, 6, "is the file of weights")
    run = fcntile("import", caffe_fcn[1], "-o", output, "--classes", output, "--overwrite")
    assert_refused(run, 6, "is the class table")
    assert output.read_text() == "precious"
    (tmp_path / "empty.csv").write_text("value,name\n")
    table = ["--classes", tmp_path / "empty.csv"]
    assert_refused(
        fcntile("import", caffe_fcn[1], "-o", output, "--overwrite", *table), 3, "no class"
    )


def train(tmp_path, make_raster, noise, *args):
    """Train two steps from a file as torchvision writes it; return the process and the weights."""
    weights = random_vgg()
    state = {f"features.{name}": w for name, w in sequential(weights).state_dict().items()}
    torch.save(state, tmp_path / "vgg16.pth")
    image = make_raster(noise(3, 128, 128), colorinterp=RGB)
    labels = make_raster(noise(1, 128, 128) // 128, "labels.tif")
    start = ["--init-weights", tmp_path / "vgg16.pth", "-o", tmp_path / "m.safetensors"]
    size = ["--arch-option", "head=16", "--window", 64, "--batch-size", 1, "--steps", 2]
    plain = ["--val-share", 0, "--device", "cpu", "--threads", 1]
    return fcntile("-v", "train", image, labels, *start, *size, *plain, *args), weights


def assert_hardly_changed(model, weights, *names):
    trained = load_file(model)
    for name in names:
        found = trained[f"block{name[0]}.{name}.conv{name}.weight"]
        assert not torch.equal(found, weights[f"conv{name}.weight"])  # two small updates
        torch.testing.assert_close(found, weights[f"conv{name}.weight"], atol=1e-3, rtol=0)


def test_training_starts_from_foreign_weights(make_raster, noise, tmp_path):
    options = ["--arch-option", "width=64", "--arch-option", "batch_norm=false"]
    run, weights = train(tmp_path, make_raster, noise, "--arch", "fcn2s_small", *options)
    assert run.returncode == 0, run.stderr
    assert "left as they start: conv6, conv7, score_fr, score_pool1" in run.stderr
    card = load_model(tmp_path / "m.safetensors").card
    assert [band.mean / 255 for band in card.bands] == pytest.approx([0.485, 0.456, 0.406])
    assert [band.std / 255 for band in card.bands] == pytest.approx([0.229, 0.224, 0.225])
    assert_hardly_changed(tmp_path / "m.safetensors", weights, "1_1", "2_2")
    config = json.loads((tmp_path / "m.run" / "config.json").read_text())
    assert config["init_weights"] == str(tmp_path / "vgg16.pth")


def test_a_start_that_cannot_be_is_refused(make_raster, noise, tmp_path):
    run, _ = train(tmp_path, make_raster, noise, "--arch", "fcn8s-small")
    assert_refused(run, 4, "has 64 filters in conv1_1, the net has 12", "width=64")
    run, _ = train(tmp_path, make_raster, noise, "--init", "buildings")
    assert_refused(run, 2, "either --init or --init-weights")
    assert not (tmp_path / "m.safetensors").exists()


@pytest.mark.slow
def test_the_net_for_foreign_weights_is_fcn8s(make_raster, noise, tmp_path):
    run, weights = train(tmp_path, make_raster, noise)
    assert run.returncode == 0, run.stderr
    assert "the network is fcn8s" in run.stderr
    assert "left as they start: conv6, conv7, score_fr, score_pool4, score_pool3" in run.stderr
    assert load_model(tmp_path / "m.safetensors").card.arch == "fcn8s"
    assert_hardly_changed(tmp_path / "m.safetensors", weights, "1_1", "5_3")
