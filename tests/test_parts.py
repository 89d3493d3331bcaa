"""Runs that are ended in the middle, and go on."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from program import FCNTILE, assert_refused

from fcntile.errors import NOTE, InputError, OutputError
from fcntile.inference.memory import resident_bytes
from fcntile.predict import predict
from fcntile.raster.parts import WHOLE, parts_folder


@pytest.fixture
def tall(orthophoto, make_raster):
    """Return an orthophoto of 8 parts: a small one, many times beside and below itself."""
    with rasterio.open(orthophoto) as raster:
        pixels = np.tile(raster.read(), (1, 8, 4))
    return make_raster(pixels, compress="deflate", tiled=True, blockxsize=512, blockysize=512)


def command(image, out, *more, tile=256):
    tiling = ["--tile", "256", "--overlap", "32"] if tile == 256 else ["--tile", str(tile)]
    return [*FCNTILE, "predict", image, "-o", str(out), *tiling, *map(str, more)]


def finished(out):
    return {p.name for p in parts_folder(out).glob("*.tif")}


def start_and_wait(image, out, *more, parts=1, tile=256):
    """Start a run and return it once it has finished some parts; what it says is in a file."""
    with Path(f"{out}.said").open("w") as said:
        run = subprocess.Popen(command(image, out, *more, tile=tile), stderr=said)
    while len(finished(out)) < parts:
        assert run.poll() is None
        time.sleep(0.01)
    return run


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Masks of uninterrupted runs, by input."""
    made = {}

    def mask(image):
        key = Path(image).read_bytes()[:100]
        if key not in made:
            out = tmp_path_factory.mktemp("whole") / "mask.tif"
            subprocess.run(command(image, out), check=True)
            made[key] = out.read_bytes()
        return made[key]

    return mask


def kill_and_go_on(image, tmp_path, reference, seed, points):
    """Kill a run a random while after each part; then let it end."""
    chance = random.Random(seed)
    out = tmp_path / "mask.tif"
    for parts in range(1, points + 1):
        run = start_and_wait(image, out, parts=parts)
        time.sleep(chance.random())
        run.kill()
        run.wait()
        assert not out.exists()
    last = subprocess.run([*command(image, out), "--json"], check=True, capture_output=True)
    summary = json.loads(last.stdout)
    assert points <= summary["resumed_parts"] < summary["parts"]
    assert out.read_bytes() == reference(image)
    assert not parts_folder(out).exists()


def test_after_kill_9_the_same_command_makes_the_same_bytes(tall, tmp_path, reference):
    kill_and_go_on(tall, tmp_path, reference, 0, 3)


@pytest.mark.slow
def test_after_kill_9_at_twenty_random_moments(tall, tmp_path, reference):
    """From the first import to the last rename."""
    chance, out = random.Random(1), tmp_path / "mask.tif"
    started = time.monotonic()
    subprocess.run(command(tall, out), check=True)
    whole = time.monotonic() - started
    for _ in range(20):
        out.unlink(missing_ok=True)
        run = subprocess.Popen(command(tall, out))
        time.sleep(chance.random() * whole)
        run.kill()
        run.wait()
        if not out.exists() or parts_folder(out).exists():
            subprocess.run(command(tall, out), check=True)
        assert out.read_bytes() == reference(tall)
        assert not parts_folder(out).exists()


@pytest.mark.parametrize(
    "sign", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_finishes_the_part_and_says_how_to_go_on(tall, tmp_path, reference, sign):
    out = tmp_path / "mask.tif"
    run = start_and_wait(tall, out)
    time.sleep(0.3)
    before = finished(out)
    asked = time.monotonic()
    run.send_signal(sign)
    assert run.wait(30) == 128 + sign
    assert time.monotonic() - asked < 10
    said = Path(f"{out}.said").read_text()
    assert "the same command goes on from there" in said
    assert "Traceback" not in said
    assert len(finished(out)) > len(before)
    assert not out.exists()
    subprocess.run(command(tall, out), check=True)
    assert out.read_bytes() == reference(tall)


def interrupted(image, out, parts=2):
    run = start_and_wait(image, out, parts=parts)
    run.kill()
    run.wait()


def test_a_signal_ends_the_last_step_too(tmp_path):
    """GDAL, which puts the parts together, knows nothing of signals."""
    image, out = tmp_path / "empty.tif", tmp_path / "mask.tif"
    profile = {"width": 15000, "height": 15000, "count": 3, "dtype": "uint8", "nodata": 0}
    profile |= {"transform": Affine(1, 0, 9, 0, -1, 0), "tiled": True, "sparse_ok": True}
    with rasterio.open(image, "w", driver="GTiff", **profile):
        pass
    with Path(f"{out}.said").open("w") as said:
        run = subprocess.Popen(command(image, out), stderr=said)
    while not (parts_folder(out) / WHOLE / "mask" / out.name).exists():
        assert run.poll() is None
        time.sleep(0.01)
    asked = time.monotonic()
    run.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    run.send_signal(signal.SIGTERM)  # now, not when it is whole
    assert run.wait(30) == 128 + signal.SIGTERM
    assert time.monotonic() - asked < 3
    assert "the same command goes on from there" in Path(f"{out}.said").read_text()
    assert not out.exists()
    summary = json.loads(subprocess.check_output([*command(image, out), "--json"]))
    assert summary["resumed_parts"] == summary["parts"]
    with rasterio.open(out) as mask:
        assert mask.read(1, out_shape=(100, 100)).min() == 255


def test_a_damaged_part_is_made_again(tall, tmp_path, reference):
    out = tmp_path / "mask.tif"
    interrupted(tall, out, parts=3)
    first, second, *_ = sorted(parts_folder(out).glob("*.tif"))
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 0xFF
    first.write_bytes(content)
    second.write_bytes(second.read_bytes()[:200])
    run = subprocess.run(command(tall, out), capture_output=True, text=True, check=True)
    assert "2 file(s)" in run.stderr
    assert out.read_bytes() == reference(tall)


def test_another_option_refuses_to_go_on(tall, tmp_path):
    out = tmp_path / "mask.tif"
    interrupted(tall, out, parts=1)
    kept = finished(out)
    for words, more in {
        "overlap was 32, not 64": {"overlap": 64},
        'stitch was "cosine", not "crop"': {"stitch": "crop"},
        "threshold was null": {"threshold": 0.4},
        "outputs was": {"products": {"probabilities": tmp_path / "p.tif"}},
        "window was": {"bounds": (500_000, 8_999_900, 500_100, 9_000_000)},
    }.items():
        with pytest.raises(OutputError, match=f"{re.escape(words)}.*--restart"):
            predict(tall, out, **{"tile": 256, "overlap": 32, **more})
    run = subprocess.run([*command(tall, out), "--overlap", "64"], capture_output=True, text=True)
    assert_refused(run, 6, "overlap was 32, not 64", "--restart")
    assert finished(out) == kept


def test_another_raster_or_model_refuses_and_restart_begins_anew(
    tall, make_model, tmp_path, reference
):
    out = tmp_path / "mask.tif"
    interrupted(tall, out)
    os.utime(tall, (0, 0))
    with pytest.raises(OutputError, match=r"raster was .*--restart"):
        predict(tall, out, tile=256, overlap=32)
    model = make_model("probe", classes=2)
    with pytest.raises(OutputError, match=r"model was .* not .*--restart"):
        predict(tall, out, tile=256, overlap=32, model=model)
    summary = predict(tall, out, tile=256, overlap=32, restart=True)
    assert summary.resumed_parts == 0
    assert out.read_bytes() == reference(tall)


@pytest.mark.parametrize("text", ["[]", '{"facts": [], "windows": []}', '{"facts": {}}', "{" * 9])
def test_a_manifest_that_is_none_refuses_and_restart_begins_anew(tall, tmp_path, text):
    out = tmp_path / "mask.tif"
    interrupted(tall, out, parts=1)
    (parts_folder(out) / "manifest.json").write_text(text)
    with pytest.raises(
        OutputError, match=r"no whole manifest\.json that says of what: .*--restart"
    ):
        predict(tall, out, tile=256, overlap=32)


def test_files_of_others_are_left_alone(orthophoto, tmp_path):
    out = tmp_path / "mask.tif"
    parts_folder(out).mkdir()
    precious = parts_folder(out) / "notes.txt"
    precious.write_text("precious")
    for restart in (False, True):
        with pytest.raises(OutputError, match=r"notes\.txt, which is none: move"):
            predict(orthophoto, out, restart=restart)
    assert list(parts_folder(out).iterdir()) == [precious]


def test_two_processes_on_one_output(tall, tmp_path):
    out = tmp_path / "mask.tif"
    first = start_and_wait(tall, out)
    second = subprocess.run(command(tall, out), capture_output=True, text=True)
    assert_refused(second, 6, "another fcntile is writing", "mask.tif")
    first.kill()
    first.wait()


@pytest.mark.slow
def test_an_error_keeps_what_is_finished(tall, tmp_path, reference, caplog):
    """The raster breaks off in the middle; then it is whole again."""
    caplog.set_level(NOTE)
    out, image = tmp_path / "mask.tif", Path(tall)
    whole, stat = image.read_bytes(), image.stat()
    hole = len(whole) * 2 // 3
    image.write_bytes(whole[:hole] + bytes(len(whole) - hole))
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(InputError, match="cannot read rows"):
        predict(tall, out, tile=256, overlap=32)
    assert finished(out)
    assert f"{len(finished(out))} of 8 parts are kept" in caplog.text
    image.write_bytes(whole)
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert predict(tall, out, tile=256, overlap=32).resumed_parts > 0
    assert out.read_bytes() == reference(tall)


@pytest.mark.slow
def test_a_run_goes_on_with_less_memory(make_raster, orthophoto, tmp_path):
    """Missing parts are cut anew; the bytes are those of any cut."""
    with rasterio.open(orthophoto) as raster:
        pixels = np.tile(raster.read(), (1, 2, 16))  # 2048 x 8192 px
    options = {"compress": "lzw", "tiled": True, "blockxsize": 512, "blockysize": 512}
    wide = make_raster(pixels, **options)
    out, whole = tmp_path / "mask.tif", tmp_path / "whole.tif"
    interrupted(wide, out, parts=1)
    summary = predict(wide, out, tile=256, overlap=32, max_memory=resident_bytes() + 300e6)
    assert summary.parts > 4  # as many as the first run has
    assert summary.resumed_parts >= 1
    predict(wide, whole, tile=256, overlap=32)
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_a_look_at_the_raster_is_no_change_of_it(tall, tmp_path, reference):
    out = tmp_path / "mask.tif"
    interrupted(tall, out)
    Path(f"{tall}.aux.xml").write_text("<PAMDataset />")  # as QGIS writes it
    assert predict(tall, out, tile=256, overlap=32).resumed_parts > 0
    assert out.read_bytes() == reference(tall)


@pytest.mark.slow
def test_a_run_killed_in_the_last_step_goes_on_over_its_own_output(tall, tmp_path, reference):
    """Killed between the rename of the mask and the end, it is not in its own way."""
    out, kept = tmp_path / "mask.tif", tmp_path / "kept"
    run = start_and_wait(tall, out, parts=7)
    while len(finished(out)) < 8:
        time.sleep(0.001)
    run.send_signal(signal.SIGSTOP)
    shutil.copytree(parts_folder(out), kept)
    run.kill()
    run.wait()
    shutil.rmtree(parts_folder(out), ignore_errors=True)
    kept.rename(parts_folder(out))
    out.write_bytes(b"as if it had been made")
    subprocess.run(command(tall, out), check=True)
    assert out.read_bytes() == reference(tall)
    with pytest.raises(OutputError, match="--overwrite"):
        predict(tall, out)


def test_to_go_on_is_no_leave_to_replace_files(tall, orthophoto, tmp_path):
    out, precious = tmp_path / "mask.tif", tmp_path / "precious.tif"
    interrupted(tall, out)
    precious.write_text("precious")
    out.write_text("precious")
    with pytest.raises(OutputError, match="--overwrite"):
        predict(tall, out, tile=256, overlap=32)
    with pytest.raises(OutputError, match="parts of another run"):
        predict(tall, out, tile=256, overlap=32, products={"confidence": precious})
    for part in parts_folder(out).glob("*.tif"):
        part.unlink()  # as if it had been killed before the first was finished
    with pytest.raises(OutputError, match="--overwrite"):
        predict(orthophoto, out)
    assert (out.read_text(), precious.read_text()) == ("precious", "precious")


@pytest.mark.slow
def test_what_the_memory_decided_is_kept(tall, tmp_path):
    """The tile of --tile auto is that of the run that is gone on with."""
    out = tmp_path / "mask.tif"
    run = start_and_wait(tall, out, "--stitch", "exact", "--max-memory", "1GB", tile="auto")
    run.kill()
    run.wait()
    before = json.loads((parts_folder(out) / "manifest.json").read_text())["facts"]["tile"]
    free = predict(tall, tmp_path / "other.tif", stitch="exact", dry_run=True)
    assert free.tile > before
    again = predict(tall, out, stitch="exact")
    assert again.tile == before
    assert again.resumed_parts > 0
