"""From rasters and labels to a model file: whole runs of small nets."""

import csv
import json
import logging
import os
import signal
import threading
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from nets import save_test_model
from rasterio.features import rasterize
from rasterio.transform import from_origin
from rasterio.warp import Resampling, calculate_default_transform, reproject, transform_geom
from safetensors.torch import load_file
from skimage.io import imread

from fcntile.errors import (
    FcntileError,
    InputError,
    ModelError,
    OptionError,
    OutputError,
    Stopped,
)
from fcntile.evaluate import evaluate
from fcntile.models.model_file import load_model
from fcntile.predict import predict
from fcntile.train import train
from fcntile.training import session
from fcntile.training.checkpoint import read_state
from fcntile.training.preview import Preview
from fcntile.training.recipes import Settings

SMALL = {"width": 4, "head": 8, "dropout": 0.5}
WHERE = {"crs": "EPSG:32637", "transform": from_origin(5e5, 9e6, 10, 10)}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def small(**changes):
    """Return settings of a small FCN-8s with dropout, batch norms and a moving average."""
    given = {"arch": "fcn8s-small", "arch_options": SMALL, "window": 64, "batch_size": 2}
    return Settings(**{**given, "steps": 12, "val_every": 6, "warmup": 4, **changes})


def quick(**changes):
    """Return settings of a net without context, which learns colours in some steps."""
    given = {"arch": "pixel", "arch_options": {}, "steps": 40, "val_every": 1000, "lr": 0.1}
    return small(**{"ema": 0.0, "jitter": 0.0, **given, **changes})


def patches(height, width, classes, side=16, seed=0):
    """Return labels in squares of one class."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (-(-height // side), -(-width // side)))
    return np.kron(coarse, np.ones((side, side), int))[:height, :width]


def imagery(labels, bands=3, seed=0):
    """Return uint8 imagery from whose bands labels can be told, but for noise."""
    rng = np.random.default_rng(seed)
    shift = (labels * np.arange(1, bands + 1)[:, None, None] * 70) % 210
    return (shift + rng.integers(0, 40, (bands, *labels.shape))).astype(np.uint8)


@pytest.fixture
def scene(make_raster):
    """Write imagery of 3 classes and its labels, of which a corner is missing."""

    def make(height=256, width=256, name="image", seed=0, **profile):
        labels = patches(height, width, 3, seed=seed)
        image = make_raster(imagery(labels, seed=seed), f"{name}.tif", **{**WHERE, **profile})
        labels[:50, :70] = 255
        made = labels.astype(np.uint8)[None]
        return image, make_raster(made, f"{name}_label.tif", **{**WHERE, **profile})

    return make


def fit(image, labels, output, settings=None, **more):
    return train([image], labels, output, settings=settings or small(), threads=1, **more)


def pixels(path, band=1):
    with rasterio.open(path) as raster:
        return raster.read(band)


def rows_of(run):
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def losses(run):
    return [row["loss"] for row in rows_of(run)]


def stop_before(step, number):
    """Return a report of progress that sends this process a signal before a step ends."""
    return lambda done, total, **facts: os.kill(os.getpid(), number) if done == step - 1 else None


# --- what a run leaves ------------------------------------------------------------------------


def test_a_run_folder_tells_what_happened(scene, tmp_path):
    image, labels = scene()
    threads = set(threading.enumerate())
    summary = fit(image, labels, tmp_path / "m.safetensors")
    run = tmp_path / "m.run"
    assert set(threading.enumerate()) == threads
    assert summary.run == str(run)
    names = {path.name for path in run.iterdir() if not path.name.startswith("events.")}
    assert names == {
        "config.json",
        "split.geojson",
        "metrics.csv",
        "curves.png",
        "samples",
        "best.safetensors",
        "last.checkpoint.safetensors",
    }
    config = json.loads((run / "config.json").read_text())
    assert config["settings"] == asdict(small())
    assert config["pairs"] == [{"image": image, "labels": labels}]

    rows = rows_of(run)
    scores = ["val_miou", "val_pixel_accuracy"] + [f"val_iou class {i}" for i in range(3)]
    assert list(rows[0]) == ["step", "seconds", "samples_per_second", "lr", "loss", *scores]
    assert [row["step"] for row in rows] == [str(step) for step in range(1, 13)]
    assert [row["step"] for row in rows if row["val_miou"]] == ["6", "12"]
    for row in rows:
        if row["val_miou"]:
            ious = [float(row[name]) for name in scores[2:]]
            assert float(row["val_miou"]) == pytest.approx(np.mean(ious))
    best = max((row for row in rows if row["val_miou"]), key=lambda row: float(row["val_miou"]))
    assert summary.val["miou"] == float(best["val_miou"])
    assert list(summary.val["iou"]) == ["class 0", "class 1", "class 2"]
    assert (summary.steps, summary.images, summary.device) == (12, 1, "cpu")

    assert sorted(path.name for path in (run / "samples").iterdir()) == [
        f"step_{step:06d}.png" for step in (6, 12)
    ]
    for picture in ("samples/step_000012.png", "curves.png"):
        assert imread(run / picture).std() > 10
    best = load_model(run / "best.safetensors").card
    assert best.training["best_step"] == summary.best_step
    assert best.training["val"] == summary.val
    assert (tmp_path / "m.safetensors").read_bytes() == (run / "best.safetensors").read_bytes()
    assert read_state(run / "last.checkpoint.safetensors")["done"] == 12


def test_tensorboard_gets_the_same_scores(scene, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    fit(*scene(), tmp_path / "m.safetensors")
    read = events.EventAccumulator(str(tmp_path / "m.run")).Reload()
    validations = [row for row in rows_of(tmp_path / "m.run") if row["val_miou"]]
    for name in validations[0].keys() - {"step"}:
        values = [(str(e.step), pytest.approx(e.value, rel=1e-6)) for e in read.Scalars(name)]
        assert values == [(row["step"], float(row[name])) for row in validations]


def test_the_split_is_drawn_where_it_is(scene, tmp_path):
    image, labels = scene(250, 330)
    fit(image, labels, tmp_path / "m.safetensors", small(steps=1))
    split = json.loads((tmp_path / "m.run" / "split.geojson").read_text())
    with rasterio.open(image) as raster:
        grid = {"out_shape": raster.shape, "transform": raster.transform}
        outlines = [
            transform_geom("EPSG:4326", raster.crs, feature["geometry"])
            for feature in split["features"]
        ]
    drawn = rasterize(outlines, **grid)
    told = np.zeros_like(drawn)
    for feature in split["features"]:
        place = feature["properties"]
        assert place["image"] == image
        rows = slice(place["row"], place["row"] + place["height"])
        told[rows, place["column"] : place["column"] + place["width"]] = 1
    np.testing.assert_array_equal(drawn, told)
    config = json.loads((tmp_path / "m.run" / "config.json").read_text())
    ids = pixels(labels)
    assert config["val_pixels"] == [(ids[told == 1] == i).sum() for i in range(3)]
    assert config["train_pixels"] == [(ids[told == 0] == i).sum() for i in range(3)]
    assert all(
        0.1 < v / (v + t) < 0.35
        for v, t in zip(config["val_pixels"], config["train_pixels"], strict=True)
    )


def test_the_card_says_what_the_model_was_trained_on(scene, tmp_path):
    image, labels = scene()
    settings = quick(steps=2, val_share=0.0)
    fit(image, labels, tmp_path / "m.safetensors", settings, licence="CC0-1.0", attribution="me")
    card = load_model(tmp_path / "m.safetensors").card
    for band, values in zip(card.bands, pixels(image, [1, 2, 3]), strict=True):
        assert (band.mean, band.std) == pytest.approx((values.mean(), values.std()))
    assert (card.name, card.arch, card.dtype, card.resolution) == ("m", "pixel", "uint8", 10)
    assert (card.licence, card.attribution) == ("CC0-1.0", "me")
    assert card.training["images"] == ["image.tif"]
    assert card.training["steps"] == 2
    assert "val" not in card.training


def test_scores_are_those_of_predict_and_evaluate(scene, tmp_path):
    """With a net that sees one pixel, whatever tiles it is given."""
    image, _ = scene()
    val, val_labels = scene(256, 320, "val", seed=1)
    output = tmp_path / "m.safetensors"
    more = {"val": [val], "settings": quick(steps=10, val_every=5)}
    summary = train([image], f"{tmp_path}/*_label.tif", output, threads=1, **more)
    predict(val, tmp_path / "mask.tif", model=output, device="cpu", threads=1)
    result = evaluate([str(tmp_path / "mask.tif")], val_labels).as_dict()
    assert 0.3 < result["miou"] < 1
    assert summary.val["miou"] == result["miou"]
    assert list(summary.val["iou"].values()) == [c["iou"] for c in result["classes"]]
    best = [row for row in rows_of(tmp_path / "m.run") if row["step"] == str(summary.best_step)]
    assert float(best[0]["val_miou"]) == result["miou"]


def test_a_mask_does_not_depend_on_its_batch(scene, tmp_path):
    """Batch norms use what they saw in training, not the tiles of the moment."""
    image, labels = scene()
    output = tmp_path / "m.safetensors"
    fit(image, labels, output, small(steps=30, lr=0.02, ema=0.5))
    masks = []
    for size in (1, 2, 5):
        predict(
            image, tmp_path / f"{size}.tif", model=output, tile=128, overlap=32, batch_size=size,
            device="cpu", threads=1,
        )  # fmt: skip
        masks.append(pixels(tmp_path / f"{size}.tif"))
    assert len(np.unique(masks[0])) > 1
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])
    statistics = load_file(output)["block1.1_1.bn1_1.running_mean"]
    assert statistics.abs().sum() > 0.01


# --- looking first ----------------------------------------------------------------------------


def test_a_dry_run_counts_and_leaves_no_model(scene, tmp_path):
    image, labels = scene(200, 300)
    settings = small(val_share=0.3)
    preview = fit(image, labels, tmp_path / "m.safetensors", settings, dry_run=True)
    assert isinstance(preview, Preview)
    assert preview.images == [{"image": image, "labels": labels, "width": 300, "height": 200}]
    ids = pixels(labels)
    for c in preview.classes:
        assert c["train_pixels"] + c["val_pixels"] == (ids == c["value"]).sum()
        assert c["val_pixels"] > 0
    assert [c["value"] for c in preview.classes] == [0, 1, 2]
    assert (preview.steps, preview.samples) == (12, 24)
    assert preview.step_seconds > 0
    assert 100 < preview.peak_mb < 8000
    assert imread(preview.picture).std() > 10
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"image.tif", "image_label.tif", "samples.png"}
    summary = fit(image, labels, tmp_path / "m.safetensors", settings)
    assert summary.parameters == preview.parameters
    config = json.loads((tmp_path / "m.run" / "config.json").read_text())
    assert config["val_pixels"] == [c["val_pixels"] for c in preview.classes]


def test_a_dry_run_beside_a_finished_one_touches_nothing(scene, tmp_path):
    image, labels = scene()
    fit(image, labels, tmp_path / "m.safetensors", quick(steps=2))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    fit(image, labels, tmp_path / "m.safetensors", quick(), dry_run=True)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after.pop(tmp_path / "m.run" / "samples.png")
    assert after == before


# --- stopping and going on --------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "sgd", "lr": 0.05, "accumulate": 2, "loss": "ce+dice", "ema": 0.0},
        {"val_share": 0.0, "class_weights": "auto", "schedule": "poly"},
    ],
    ids=["defaults", "sgd", "nothing held out"],
)
def test_a_run_goes_on_where_it_was_stopped(scene, tmp_path, monkeypatch, changes):
    monkeypatch.setattr(session, "ROWS", 3)  # the loss in a row is a mean over several steps
    pair, settings = scene(), small(**changes)
    expected = fit(*pair, tmp_path / "whole.safetensors", settings)
    output = tmp_path / "parts.safetensors"
    for step, number in ((3, signal.SIGTERM), (6, signal.SIGINT)):  # 6 is a validation too
        stopping = {"progress": stop_before(step, number), "resume": True}
        with pytest.raises(Stopped, match=f"after step {step} of 12.*--resume") as stopped:
            fit(*pair, output, settings, **stopping)
        assert stopped.value.exit_code == 128 + number
        assert read_state(tmp_path / "parts.run" / "last.checkpoint.safetensors")["done"] == step
        assert not output.exists()
    summary = fit(*pair, output, settings, resume=True)
    assert (summary.best_step, summary.val) == (expected.best_step, expected.val)
    whole, parts = tmp_path / "whole.run", tmp_path / "parts.run"
    assert len(losses(whole)) == 4
    assert losses(parts) == losses(whole)
    for name in ("best.safetensors", "last.checkpoint.safetensors"):
        a, b = load_file(whole / name), load_file(parts / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_finished_run_can_be_asked_for_its_model_again(scene, tmp_path):
    image, labels = scene()
    output = tmp_path / "m.safetensors"
    first = fit(image, labels, output, quick(steps=3))
    whole = output.read_bytes()
    output.unlink()
    again = fit(image, labels, output, quick(steps=3), resume=True)
    assert output.read_bytes() == whole
    assert (again.val, again.loss, again.steps) == (first.val, first.loss, 3)


def test_a_damaged_model_does_not_become_the_output(scene, tmp_path):
    image, labels = scene()
    output, best = tmp_path / "m.safetensors", tmp_path / "m.run" / "best.safetensors"
    fit(image, labels, output, quick(steps=3))
    output.unlink()
    for content in (best.read_bytes()[:-9], b"", None):
        best.unlink()
        if content is not None:
            best.write_bytes(content)
        words = r"best\.safetensors.*; begin the run anew with --overwrite"
        with pytest.raises(ModelError, match=words):
            fit(image, labels, output, quick(steps=3), resume=True)
        assert not output.exists()


def test_a_run_does_not_go_on_from_the_checkpoint_of_another(scene, tmp_path):
    image, labels = scene()
    for name, steps in (("a", 4), ("b", 3)):
        fit(image, labels, tmp_path / f"{name}.safetensors", quick(steps=steps))
    checkpoint = "last.checkpoint.safetensors"
    (tmp_path / "a.run" / checkpoint).replace(tmp_path / "b.run" / checkpoint)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(ModelError, match=r"is of another run than the config\.json beside it"):
        fit(image, labels, tmp_path / "b.safetensors", quick(steps=3), resume=True)


def test_a_run_does_not_go_on_with_other_options(scene, tmp_path):
    image, labels = scene()
    output, settings = tmp_path / "m.safetensors", quick(steps=3, val_share=0.2)
    fit(image, labels, output, settings)
    output.unlink()
    before = {path: path.read_bytes() for path in (tmp_path / "m.run").glob("*.*")}
    for changes, words in {
        ("lr", 0.5): "--lr was 0.1, is 0.5$",
        ("batch_size", 4): "--batch-size was 2, is 4$",
        ("flip", False): "--flip was True, is False$",
        ("seed", 9): "--seed was 0, is 9",
    }.items():
        other = Settings(**{**asdict(settings), changes[0]: changes[1]})
        with pytest.raises(OptionError, match=words):
            fit(image, labels, output, other, resume=True)
    with pytest.raises(OptionError, match="classes differ"):
        fit(image, labels, output, settings, resume=True, ignore=[1])
    with pytest.raises(OptionError, match="--init was None, is buildings"):
        fit(image, labels, output, settings, resume=True, init="buildings")
    assert {path: path.read_bytes() for path in before} == before
    (tmp_path / "m.run" / "config.json").write_text("{")
    with pytest.raises(OutputError, match=r"cannot read .*config.json"):
        fit(image, labels, output, settings, resume=True)


def test_a_folder_is_for_one_run_unless_it_is_replaced(scene, tmp_path):
    image, labels = scene()
    run = tmp_path / "run"
    fit(image, labels, tmp_path / "a.safetensors", quick(steps=6, val_every=2), run=run)
    (run / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds a run: go on with it by --resume, or replace"):
        fit(image, labels, tmp_path / "b.safetensors", quick(), run=run)
    settings = quick(steps=4, val_every=2)
    fit(image, labels, tmp_path / "b.safetensors", settings, run=run, overwrite=True)
    assert len(rows_of(run)) == 4
    assert len(list((run / "samples").iterdir())) == 2
    assert len(list(run.glob("events.*"))) <= 1
    assert (run / "notes.txt").read_text() == "mine"


def test_another_thread_can_train(scene, tmp_path):
    """Signals reach the main thread only; a notebook or a server may train elsewhere."""
    pair, done = scene(), []
    where = tmp_path / "m.safetensors"
    thread = threading.Thread(target=lambda: done.append(fit(*pair, where, quick(steps=2))))
    thread.start()
    thread.join()
    assert done[0].steps == 2


@pytest.mark.parametrize("name", ["config.json", "best.safetensors", "last.checkpoint.safetensors"])
def test_files_of_a_run_are_not_replaced_unasked(scene, tmp_path, name):
    image, labels = scene()
    folder = tmp_path / "m.run"
    folder.mkdir()
    (folder / name).write_text("precious")
    with pytest.raises(OutputError, match="holds a run"):
        fit(image, labels, tmp_path / "m.safetensors", quick(steps=2))
    assert (folder / name).read_text() == "precious"


def test_class_names_may_have_commas_and_quotes(scene, tmp_path):
    image, labels = scene()
    table = tmp_path / "classes.csv"
    table.write_text('value,name\n0,"forest, ""evergreen"""\n1,water\n2,"$\\frac$"\n')
    fit(image, labels, tmp_path / "m.safetensors", quick(steps=2), classes=table)
    assert float(rows_of(tmp_path / "m.run")[-1]['val_iou forest, "evergreen"']) >= 0


def test_a_loss_that_explodes_is_said_and_the_last_good_weights_stay(scene, tmp_path):
    image, labels = scene()
    settings = small(lr=1e30, clip_grad=0.0, warmup=0, val_every=1)
    threads = set(threading.enumerate())
    with pytest.raises(
        ModelError, match=r"(loss is|gradient is).* in step \d+: begin anew with a smaller --lr"
    ) as error:
        fit(image, labels, tmp_path / "m.safetensors", settings)
    path = tmp_path / "m.run" / "last.checkpoint.safetensors"
    assert f"the last good checkpoint is {path}" in str(error.value)
    assert set(threading.enumerate()) == threads
    assert not (tmp_path / "m.safetensors").exists()
    assert read_state(path)["done"] >= 1
    weights = load_file(path)
    assert all(w.isfinite().all() for key, w in weights.items() if key.startswith("net."))


# --- tasks ------------------------------------------------------------------------------------


def test_three_hundred_classes(make_raster, tmp_path):
    """Their ids are the labels', 255 too; on a circle of colours all can be told apart."""

    def write(name, seed):
        places = np.random.default_rng(seed).permutation(np.arange(1600) % 300)
        labels = np.kron(places.reshape(40, 40), np.ones((8, 8), int))
        angle = labels * 2 * np.pi / 300
        image = 30_000 + 20_000 * np.stack([np.cos(angle), np.sin(angle)])
        ids = labels.astype(np.uint16)[None]
        return make_raster(image.astype(np.uint16), f"{name}.tif"), make_raster(
            ids, f"{name}_l.tif"
        )

    image, labels = write("train", 0)
    other, truth = write("other", 1)
    output = tmp_path / "m.safetensors"
    settings = quick(steps=40, lr=0.5, balance=0.0, val_share=0.0)
    summary = fit(image, labels, output, settings)
    assert list(summary.classes) == list(range(300))
    predict(other, tmp_path / "mask.tif", model=output, device="cpu", threads=1)
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert (mask.dtypes[0], mask.nodata) == ("uint16", 65535)
        ids = mask.read(1)
    assert (ids == pixels(truth)).mean() > 5 / 300
    assert (ids[pixels(truth) > 255] > 255).mean() > 0.5
    assert evaluate([str(tmp_path / "mask.tif")], truth).as_dict()["pixel_accuracy"] == (
        pytest.approx((ids == pixels(truth)).mean())
    )


def test_a_rare_class_is_found(make_raster, tmp_path):
    def write(name, seed):
        rng = np.random.default_rng(seed)
        labels = np.zeros((512, 512), np.uint8)
        for row, column in rng.integers(0, 500, (13, 2)):
            labels[row : row + 10, column : column + 10] = 1
        image = rng.integers(60, 160, (3, 512, 512)) + 60 * labels
        make_raster(labels[None], f"{name}_label.tif")
        return make_raster(image.astype(np.uint8), f"{name}.tif"), (labels == 1).mean()

    image, share = write("a", 0)
    other, _ = write("b", 1)
    assert share < 0.0051
    net = {"arch_options": {**SMALL, "dropout": 0.0}, "batch_size": 4, "ema": 0.9}
    settings = small(steps=100, lr=0.01, val_every=1000, jitter=0.1, **net)
    labels = f"{tmp_path}/*_label.tif"
    summary = train(
        [image], labels, tmp_path / "m.safetensors", settings=settings, val=[other], threads=1
    )
    assert summary.val["iou"]["class 1"] > 0.05


def test_one_float_band_with_holes(make_raster, tmp_path):
    labels = patches(256, 256, 2)
    image = np.random.default_rng(0).normal(-3e4, 1, labels.shape) + 5 * labels
    image[60:90, 10:200] = np.nan
    image[200, 200] = np.inf
    path = make_raster(image[None].astype(np.float32))
    truth = make_raster(labels[None].astype(np.uint8), "labels.tif")
    output = tmp_path / "m.safetensors"
    fit(path, truth, output, quick(val_share=0.0))
    assert all(np.isfinite(float(loss)) for loss in losses(tmp_path / "m.run"))
    (band,) = load_model(output).card.bands
    seen = image[np.isfinite(image)]
    assert (band.mean, band.std) == pytest.approx((seen.mean(), seen.std()), rel=1e-6)
    predict(path, tmp_path / "mask.tif", model=output, device="cpu", threads=1)
    mask = pixels(tmp_path / "mask.tif")
    assert ((mask == 255) == ~np.isfinite(image)).all()
    assert (mask == labels)[np.isfinite(image)].mean() > 0.95


@pytest.fixture
def fields(make_raster):
    """Write imagery of two classes in UTM; return it with its labels."""
    labels = patches(256, 256, 2, side=32)
    return make_raster(
        imagery(labels), **{**WHERE, "transform": from_origin(5e5, 5e6, 10, 10)}
    ), labels


def assert_learned(image, labels, truth, tmp_path, **more):
    """Check that labels of any kind teach a net the classes, in the right places."""
    preview = fit(image, labels, tmp_path / "m.safetensors", quick(), dry_run=True, **more)
    counted = [c["train_pixels"] + c["val_pixels"] for c in preview.classes]
    assert counted == pytest.approx([(truth == 0).sum(), (truth == 1).sum()], rel=0.03)
    fit(image, labels, tmp_path / "m.safetensors", quick(), **more)
    predict(image, tmp_path / "mask.tif", model=tmp_path / "m.safetensors", device="cpu")
    assert (pixels(tmp_path / "mask.tif") == truth).mean() > 0.95
    names = {c.value: c.name for c in load_model(tmp_path / "m.safetensors").card.classes}
    return preview.classes, names


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")  # from rasterio, between threads
def test_polygons_in_degrees_teach_an_image_in_metres(fields, tmp_path):
    image, truth = fields
    with rasterio.open(image) as raster:
        features = []
        for row, column in np.argwhere(truth[::32, ::32] == 1) * 32:
            corners = [(0, 0), (32, 0), (32, 32), (0, 32), (0, 0)]
            ring = [raster.transform * (int(column) + x, int(row) + y) for x, y in corners]
            outline = {"type": "Polygon", "coordinates": [ring]}
            outline = transform_geom(raster.crs, "EPSG:4326", outline)
            features.append(
                {"type": "Feature", "properties": {"kind": "crop"}, "geometry": outline}
            )
    path = tmp_path / "fields.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    classes, names = assert_learned(image, str(path), truth, tmp_path)
    assert [c["value"] for c in classes] == [0, 1]
    assert names == {0: "background", 1: "feature"}
    with pytest.raises(InputError, match=r"fewer than two classes: 1 \(crop\)"):
        fit(image, str(path), tmp_path / "c.safetensors", class_field="kind")


def test_labels_of_another_grid_teach_an_image(fields, tmp_path):
    image, truth = fields
    with rasterio.open(image) as raster:
        place, width, height = calculate_default_transform(
            raster.crs, "EPSG:4326", 256, 256, *raster.bounds, resolution=5e-5
        )
        warped = np.full((height, width), 9, np.uint8)
        reproject(
            truth.astype(np.uint8), warped, src_transform=raster.transform, src_crs=raster.crs,
            dst_transform=place, dst_crs="EPSG:4326", resampling=Resampling.nearest, dst_nodata=9,
            init_dest_nodata=True,
        )  # fmt: skip
    profile = {"driver": "GTiff", "width": width, "height": height, "count": 1, "dtype": "uint8"}
    with rasterio.open(
        tmp_path / "l.tif", "w", crs="EPSG:4326", transform=place, nodata=9, **profile
    ) as labels:
        labels.write(warped, 1)
    assert_learned(image, str(tmp_path / "l.tif"), truth, tmp_path)


def test_labels_in_sixteen_bits_and_a_directory_of_one_image(scene, tmp_path, make_raster):
    image, labels = scene()
    ids = pixels(labels).astype(np.uint16) * 100
    (tmp_path / "images").mkdir()
    Path(image).rename(tmp_path / "images" / "a.tif")
    wide = make_raster(ids[None], "a_ids.tif", **WHERE)
    output = tmp_path / "m.safetensors"
    folder = str(tmp_path / "images")
    summary = train([folder], wide, output, settings=quick(steps=5), ignore=[25_500], threads=1)
    assert list(summary.classes) == [0, 100, 200]
    predict(str(tmp_path / "images" / "a.tif"), tmp_path / "mask.tif", model=output, device="cpu")
    assert set(np.unique(pixels(tmp_path / "mask.tif"))) <= {0, 100, 200}


def test_a_raster_smaller_than_the_window(scene, tmp_path, caplog):
    image, labels = scene(120, 90)
    fit(image, labels, tmp_path / "m.safetensors", small(window=256, steps=2, val_every=1))
    assert len(rows_of(tmp_path / "m.run")) == 2
    image, labels = scene(60, 60, "tiny")
    with rasterio.open(labels, "r+") as raster:
        raster.write(patches(60, 60, 2).astype(np.uint8), 1)
    with caplog.at_level(logging.WARNING):
        summary = fit(image, labels, tmp_path / "t.safetensors", small(steps=2))
    assert summary.val is None
    assert "a single block of 64 px, so nothing is held out" in caplog.text


def test_nothing_labelled_in_what_is_held_out_is_as_if_nothing_were(make_raster, tmp_path):
    """One block has labels, the other only ignored ones: that is the more even split."""
    labels = np.full((1, 64, 128), 7, np.uint8)
    labels[0, :, :64] = patches(64, 64, 2)
    image = make_raster(imagery(labels[0]))
    path = make_raster(labels, "labels.tif")
    summary = fit(image, path, tmp_path / "m.safetensors", quick(steps=4), ignore=[7])
    assert (summary.val, summary.best_step) == (None, 4)


# --- other models to start from ---------------------------------------------------------------


def test_a_run_starts_from_another_model(scene, tmp_path, make_raster, caplog):
    """Its weights are there before the first step, which hardly moves them here."""
    labels = patches(128, 128, 5)
    names = {"descriptions": ("blue", "green", "red", "extra")}
    image = make_raster(imagery(labels, bands=4), "four.tif")
    with rasterio.open(image, "r+") as raster:
        raster.descriptions = names["descriptions"]
        raster.colorinterp = [rasterio.enums.ColorInterp.undefined] * 4
    truth = make_raster(labels[None].astype(np.uint8), "four_label.tif")
    start = tmp_path / "start.safetensors"
    options = {**SMALL, "dropout": 0.1, "batch_norm": True}
    save_test_model(start, "fcn8s-small", arch_options=options)
    settings = small(arch=None, arch_options={}, steps=1, lr=1e-12, ema=0.0, val_share=0.0)
    with caplog.at_level(logging.INFO):
        summary = fit(image, truth, tmp_path / "m.safetensors", settings, init=str(start))
    assert summary.arch == "fcn8s-small"
    old, new = load_file(start), load_file(tmp_path / "m.safetensors")
    first = "block1.1_1.conv1_1.weight"
    for channel, band in enumerate((2, 1, 0)):
        torch.testing.assert_close(new[first][:, channel], old[first][:, band], atol=1e-8, rtol=0)
    torch.testing.assert_close(new[first][:, 3], old[first].mean(1), atol=1e-8, rtol=0)
    skipped = [name for name in old if old[name].shape != new[name].shape and name != first]
    assert all(name.startswith(("score", "upscore")) for name in skipped)
    for name in old:
        is_weight = "running" not in name and "num_batches" not in name
        if name not in (*skipped, first) and is_weight:
            torch.testing.assert_close(new[name], old[name], atol=1e-8, rtol=0)
    assert "random as before, not from test-fcn8s-small: " in caplog.text
    assert all(name in caplog.text for name in skipped)
    card = load_model(tmp_path / "m.safetensors").card
    assert card.arch_options == options
    assert card.bands[0].mean == pytest.approx(pixels(image).mean())


# --- what cannot be ---------------------------------------------------------------------------


def assert_refused(error, words, tmp_path, *arguments, **more):
    """Check that a run fails in a sentence and leaves neither threads nor files."""
    before, threads = sorted(tmp_path.rglob("*")), set(threading.enumerate())
    with pytest.raises(FcntileError, match=words) as raised:
        fit(*arguments, **more)
    assert type(raised.value) is error
    assert "\n" not in str(raised.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert set(threading.enumerate()) == threads


def test_images_and_labels_that_cannot_be_trained_with_are_refused(scene, make_raster, tmp_path):
    image, labels = scene()
    zeros = np.zeros((1, 256, 256), np.uint8)
    far = from_origin(7e5, 9e6, 10, 10)
    (tmp_path / "notes.tif").write_text("These are notes.\n")
    (tmp_path / "notes.geojson").write_text("These are notes.\n")
    (tmp_path / "classes.csv").write_text("value,name\n0,a\n1,b\n")
    output = tmp_path / "m.safetensors"
    for words, path, truth, more in (
        ("do not lie on", image, make_raster(zeros, "far.tif", **{**WHERE, "transform": far}), {}),
        ("no pixel .* labelled", image, make_raster(zeros + 255, "none.tif", **WHERE), {}),
        ("cannot open the labels .*notes.tif", image, str(tmp_path / "notes.tif"), {}),
        ("cannot read the labels .*notes.geojson", image, str(tmp_path / "notes.geojson"), {}),
        ("cannot open .*missing.tif", str(tmp_path / "missing.tif"), labels, {}),
        ("no file matches", str(tmp_path / "*.jpg"), labels, {}),
        ("of which 2 is in no row", image, labels, {"classes": str(tmp_path / "classes.csv")}),
        ("bands 1 to 3, there is no 4", image, labels, {"bidx": [1, 4]}),
        ("fewer than two classes", image, labels, {"ignore": [0, 1]}),
        ("none is left to train on", image, labels, {"val": [f"{tmp_path}/./image.tif"]}),
    ):
        assert_refused(InputError, words, tmp_path, path, truth, output, **more)


def test_images_of_different_bands_are_refused(scene, make_raster, noise, tmp_path):
    scene(name="a")
    scene(name="b")
    make_raster(noise(5, 256, 256), "b.tif", **WHERE)
    images, labels = f"{tmp_path}/?.tif", f"{tmp_path}/?_label.tif"
    words = "b.tif has 5 uint8 band.*a.tif has 3 uint8 band.*need the same bands"
    assert_refused(InputError, words, tmp_path, images, labels, tmp_path / "m.safetensors")


def test_validation_without_labels_is_refused(scene, tmp_path, make_raster):
    image, labels = scene()
    other, _ = scene(name="other")
    make_raster(np.full((1, 256, 256), 255, np.uint8), "other_label.tif", **WHERE)
    more = {"val": [other]}
    labels = f"{tmp_path}/*_label.tif"
    words = "label no pixel of the images to validate on"
    assert_refused(InputError, words, tmp_path, image, labels, tmp_path / "m.safetensors", **more)


def test_an_image_to_validate_on_is_not_trained_on(scene, tmp_path, monkeypatch):
    """However its path is written."""
    for name in ("a", "b"):
        scene(name=name, seed=ord(name))
    monkeypatch.chdir(tmp_path)
    more = {"val": ["./a.tif"], "settings": quick(), "dry_run": True, "threads": 1}
    preview = train([f"{tmp_path}/?.tif"], "*_label.tif", "m.safetensors", **more)
    assert [image["image"] for image in preview.images] == [f"{tmp_path}/b.tif", "./a.tif"]


def test_settings_that_do_not_suit_the_net_or_the_classes_are_refused(scene, tmp_path):
    image, labels = scene()
    for error, words, changes in (
        (ModelError, "no network is called 'unet'", {"arch": "unet"}),
        (ModelError, "has no option", {"arch_options": {"depth": 4}}),
        (OptionError, "window 80 is not a multiple of the net's stride, 32", {"window": 80}),
        (OptionError, "1,2 are 2 numbers for 3 classes", {"class_weights": "1,2"}),
    ):
        output, settings = tmp_path / "m.safetensors", small(**changes)
        assert_refused(error, words, tmp_path, image, labels, output, settings=settings)


@pytest.mark.parametrize(
    "changes",
    [
        {"class_weights": "abc"},
        {"class_weights": "1,-2,3"},
        {"class_weights": "0,0,0"},
        {"class_weights": "1,nan,2"},
        {"class_weights": ""},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"lr": -1.0},
        {"momentum": 1.0},
        {"scale": float("nan")},
        {"seed": 2**32},
    ],
)
def test_numbers_that_mean_nothing_are_refused(changes):
    with pytest.raises(OptionError, match=next(iter(changes)).replace("_", " ")):
        Settings(**changes)


def test_weights_of_classes_reach_the_loss(scene, tmp_path):
    """A class that weighs nothing is not learned; as many others as it takes are."""
    image, labels = scene()
    settings = quick(class_weights="1,0,1", val_share=0.0, steps=40)
    fit(image, labels, tmp_path / "m.safetensors", settings)
    predict(image, tmp_path / "mask.tif", model=tmp_path / "m.safetensors", device="cpu")
    mask, truth = pixels(tmp_path / "mask.tif"), pixels(labels)
    assert (mask[truth == 0] == 0).mean() > 0.9
    assert (mask[truth == 2] == 2).mean() > 0.9
    assert (mask[truth == 1] == 1).mean() < 0.5


def test_a_batch_norm_of_a_single_pixel_is_refused(scene, tmp_path):
    settings, output = small(window=32, batch_size=1), tmp_path / "m.safetensors"
    with pytest.raises(OptionError, match=r"1 window\(s\) of 32 px .* larger --window or --batch"):
        fit(*scene(), output, settings, dry_run=True)


@pytest.mark.parametrize("dtype", ["int64", "uint64", "complex64"])
def test_images_of_no_dtype_that_models_know_are_refused(scene, make_raster, tmp_path, dtype):
    _, labels = scene()
    image = make_raster(np.ones((3, 256, 256), dtype), "other.tif", **WHERE)
    words = f"other.tif has {dtype} values, a model wants uint8, .* gdal_translate"
    assert_refused(InputError, words, tmp_path, image, labels, tmp_path / "m.safetensors")


def test_an_output_is_never_an_input(scene, tmp_path):
    image, labels = (Path(path) for path in scene())
    for name in ("c.csv", "w.safetensors"):
        (tmp_path / name).write_text("precious")
    folder = tmp_path / "images"
    folder.mkdir()
    image = image.rename(folder / image.name)
    table, weights = str(tmp_path / "c.csv"), str(tmp_path / "w.safetensors")
    for given, output, more in (
        (folder, image, {}),
        (f"{folder}/*.tif", image, {}),
        (f"{folder}/*.tif", labels, {}),
        (image, table, {"classes": table}),
        (image, weights, {"init": weights}),
        (image, weights, {"init_weights": weights}),
        (image, image, {"val": [f"{folder}/../images/im*"]}),
    ):
        arguments = str(given), str(labels), output
        words = f"the output {output} is an input"
        assert_refused(OutputError, words, tmp_path, *arguments, overwrite=True, **more)


def test_a_run_folder_without_name_is_not_the_current_directory(scene, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "m.safetensors"
    assert_refused(OutputError, "run folder has no name", tmp_path, *scene(), output, run="")


def test_an_output_in_the_way_is_refused(scene, tmp_path):
    image, labels = scene()
    (tmp_path / "m.safetensors").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for words, output, more in (
        ("exists: use --overwrite", "m.safetensors", {}),
        ("does not exist", "no/m.safetensors", {}),
        ("is an input", "image_label.tif", {"overwrite": True}),
        ("is the run folder too", "m.run", {}),
        ("cannot make the run folder", "new.safetensors", {"run": tmp_path / "file" / "run"}),
    ):
        assert_refused(OutputError, words, tmp_path, image, labels, tmp_path / output, **more)
    assert (tmp_path / "m.safetensors").read_text() == "precious"
    assert (tmp_path / "file").read_text() == "precious"
