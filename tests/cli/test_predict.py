"""The command as it is typed, in a process of its own, on real files."""

import contextlib
import fcntl
import json
import os
import pickle
import pty
import resource
import signal
import struct
import subprocess
import sys
import termios
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
from program import FCNTILE, assert_refused, fcntile
from range_server import RangeServer
from rasterio.enums import ColorInterp

DATA = Path(__file__).parents[1] / "data"


def test_a_mask_is_written_and_nothing_is_said(orthophoto, tmp_path):
    run = fcntile("predict", orthophoto, "-o", tmp_path / "mask.tif")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    with rasterio.open(tmp_path / "mask.tif") as mask, rasterio.open(orthophoto) as image:
        assert mask.shape == image.shape
        assert mask.transform == image.transform
        assert mask.crs == image.crs
        assert set(np.unique(mask.read(1))) == {0, 1}
        assert mask.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert {p.name for p in tmp_path.iterdir()} == {"mask.tif", "mask.tif.aux.xml"}


def test_the_summary_is_json_on_stdout(orthophoto, tmp_path):
    run = fcntile("predict", orthophoto, "-o", tmp_path / "mask.tif", "--json", "--device", "cpu")
    summary = json.loads(run.stdout)
    assert summary.keys() == {
        "output",
        "width",
        "height",
        "tile",
        "compute_factor",
        "tiles",
        "skipped_tiles",
        "parts",
        "resumed_parts",
        "seconds",
        "megapixels_per_second",
        "stage_seconds",
        "peak_rss_mb",
        "model",
        "device",
    }
    assert summary["output"] == str(tmp_path / "mask.tif")
    assert (summary["tiles"], summary["device"]) == (3, "cpu")
    assert 100 < summary["peak_rss_mb"] < 4000


def test_progress_is_json_lines_on_stderr(orthophoto, tmp_path):
    run = fcntile("predict", orthophoto, "-o", tmp_path / "mask.tif", "--progress", "json")
    events = [json.loads(line) for line in run.stderr.splitlines()]
    assert run.stdout == ""
    assert events[-1].keys() == {"event", "done", "total", "seconds", "eta_seconds"}
    assert (events[-1]["event"], events[-1]["done"], events[-1]["total"]) == ("progress", 3, 3)


def test_a_terminal_gets_a_bar(orthophoto, tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    command = [*FCNTILE, "predict", orthophoto, "-o", str(tmp_path / "mask.tif")]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, check=True)
    os.close(theirs)
    with os.fdopen(ours, errors="ignore") as terminal:
        shown = ""
        with contextlib.suppress(OSError):  # how a terminal ends
            while more := terminal.read(1):
                shown += more
    assert "3/3" in shown
    assert run.stdout == b""


def test_options_reach_the_mask(orthophoto, tmp_path):
    args = ["--tile", 256, "--overlap", "12.5%", "--batch-size", 2, "--threads", 1, "--precision"]
    run = fcntile(
        "predict", orthophoto, "-o", tmp_path / "mask.tif", *args, "bf16", "-f", "gtiff",
        "--co", "COMPRESS=ZSTD", "-b", 1, "-b", 2, "-b", 3,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert mask.compression.name == "zstd"
        assert "LAYOUT" not in mask.tags(ns="IMAGE_STRUCTURE")
        options = json.loads(mask.tags()["FCNTILE_OPTIONS"])
    assert (options["tile"], options["overlap"], options["precision"]) == (256, 32, "bfloat16")


def test_the_model_can_come_from_the_environment(orthophoto, tmp_path):
    run = fcntile(
        "predict", orthophoto, "-o", tmp_path / "m.tif", env={"FCNTILE_MODEL": "/no/such.model"}
    )
    assert_refused(run, 4, "/no/such.model", "buildings")


def test_a_raster_is_read_from_an_archive_and_a_url(orthophoto, tmp_path):
    predict = partial(fcntile, "predict")
    assert predict(orthophoto, "-o", tmp_path / "file.tif").returncode == 0
    expected = (tmp_path / "file.tif").read_bytes()

    archive = tmp_path / "images.zip"
    subprocess.run([sys.executable, "-m", "zipfile", "-c", archive, orthophoto], check=True)
    inside = f"zip+file://{archive}!philippines_1.tif"
    assert predict(inside, "-o", tmp_path / "zip.tif").returncode == 0
    assert (tmp_path / "zip.tif").read_bytes() == expected

    with RangeServer(Path(orthophoto).parent) as server:
        url = server.url("philippines_1.tif")
        run = predict(url, "-o", tmp_path / "url.tif")
        missing = predict(url.replace("_1", "_9"), "-o", tmp_path / "missing.tif")
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "url.tif").read_bytes() == expected
    assert_refused(missing, 3, "philippines_9.tif")


# --- bad input: a sentence, an exit code, no traceback, nothing left behind -------------------


def truncated(folder, orthophoto):
    path = folder / "truncated.tif"
    path.write_bytes(Path(orthophoto).read_bytes()[:60_000])
    return path


def damaged(folder, orthophoto):
    """Return a JPEG-compressed raster with a hole in a tile: GDAL warns and gives guesses."""
    path = folder / "damaged.tif"
    whole = bytearray(Path(orthophoto).read_bytes())
    whole[60_000:60_300] = bytes(300)
    path.write_bytes(whole)
    return path


def text(folder, orthophoto):
    path = folder / "notes.tif"
    path.write_text("These are notes.\n")
    return path


@pytest.mark.parametrize(
    ("image", "exit_code", "words"),
    [
        (truncated, 3, ["truncated.tif", "cannot open"]),
        (damaged, 3, ["damaged.tif", "rows", "Corrupt JPEG data"]),
        (text, 3, ["notes.tif", "cannot open"]),
        (DATA / "corrupt.tif", 3, ["corrupt.tif", "rows"]),
        (
            DATA / "float_nan.tif",
            3,
            ["1 band(s)", "wants 3 (red, green, blue)", "use another raster"],
        ),
        (DATA / "RGBA.uint16.tif", 3, ["is uint16", "wants uint8"]),
        (DATA / "all-nodata.tif", 3, ["4 band(s)"]),
        (DATA / "missing.tif", 3, ["missing.tif", "No such file"]),
        (DATA, 3, ["cannot open"]),
    ],
)
def test_a_bad_raster_is_refused(orthophoto, tmp_path, image, exit_code, words):
    image = image(tmp_path, orthophoto) if callable(image) else image
    before = sorted(tmp_path.iterdir())
    run = fcntile("predict", image, "-o", tmp_path / "mask.tif")
    assert_refused(run, exit_code, *words)
    assert sorted(tmp_path.iterdir()) == before


def test_a_quiet_user_gets_no_guessed_pixels_either(orthophoto, tmp_path):
    run = fcntile("-q", "predict", damaged(tmp_path, orthophoto), "-o", tmp_path / "mask.tif")
    assert_refused(run, 3, "Corrupt JPEG data")


def test_another_set_of_colours_is_refused(make_raster, noise, tmp_path):
    names = [ColorInterp.nir, ColorInterp.red, ColorInterp.green]
    image = make_raster(noise(3, 20, 20), colorinterp=names)
    run = fcntile("predict", image, "-o", tmp_path / "mask.tif")
    assert_refused(run, 3, "nir, red, green", "choose them with -b")


def test_a_container_of_rasters_names_what_is_inside(tmp_path, orthophoto):
    path = tmp_path / "two.gpkg"
    with rasterio.open(orthophoto) as image:
        pixels, where = image.read(), {"crs": image.crs, "transform": image.transform}
    for table in ("a", "b"):
        options = {"raster_table": table, "append_subdataset": table == "b"}
        with rasterio.open(
            path, "w", driver="GPKG", width=512, height=1024, count=3, dtype="uint8", **where,
            **options,
        ) as raster:  # fmt: skip
            raster.write(pixels)
    assert_refused(fcntile("predict", path, "-o", tmp_path / "m.tif"), 3, "GPKG:", "two.gpkg:b")


def test_another_dtype_or_scale_is_refused(make_raster, make_model, noise, tmp_path):
    image = make_raster(noise(3, 20, 20).astype(np.uint16))
    run = fcntile("predict", image, "-o", tmp_path / "mask.tif")
    assert_refused(run, 3, "uint16", "wants uint8")
    image = make_raster(noise(3, 20, 20))
    with rasterio.open(image, "r+") as raster:
        raster.scales = (1e-4,) * 3
    run = fcntile("predict", image, "-o", tmp_path / "mask.tif")
    assert_refused(run, 3, "scale 0.0001", "wants 1 and 0")


def test_a_pickle_is_no_model(orthophoto, tmp_path):
    path = tmp_path / "evil.safetensors"
    path.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))
    run = fcntile("predict", orthophoto, "-o", tmp_path / "mask.tif", "--model", path)
    assert_refused(run, 4, "evil.safetensors", "not a model file")
    assert list(tmp_path.iterdir()) == [path]


def test_a_bad_output_is_refused(orthophoto, tmp_path):
    (tmp_path / "mask.tif").write_text("precious")
    for output, words in {
        tmp_path: "directory",
        tmp_path / "no" / "mask.tif": "does not exist",
        tmp_path / "mask.tif": "--overwrite",
    }.items():
        assert_refused(fcntile("predict", orthophoto, "-o", output), 6, words)
    assert (tmp_path / "mask.tif").read_text() == "precious"
    run = fcntile("predict", orthophoto, "-o", tmp_path / "mask.tif", "--overwrite")
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize(("limit", "parts"), [(300, 0), (2000, 1)])
def test_a_full_disk_is_said_and_nothing_is_lost(make_raster, noise, tmp_path, limit, parts):
    """A limit on file size stands in for the full disk: the same failing write."""
    image, out = make_raster(noise(3, 600, 600)), tmp_path / "mask.tif"
    before = sorted(tmp_path.iterdir())
    run = fcntile(
        "predict",
        image,
        "-o",
        out,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert_refused(run, 6, "cannot write", "mask.tif")
    if not parts:
        assert sorted(tmp_path.iterdir()) == before
        return
    assert not out.exists()
    again = fcntile("predict", image, "-o", out, "--json")
    assert json.loads(again.stdout)["resumed_parts"] == parts
    assert not (tmp_path / "mask.tif.parts").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--overlap", "lots"], ["neither pixels nor a share"]),
        (["--tile", "500"], ["multiple of the net's stride, 32: use 480 or 512"]),
        (["--overlap", "8"], ["multiple of the net's stride, 32: use 32"]),
        (["--device", "toaster"], ["no device is called 'toaster'"]),
        (["--co", "COMPRESS"], ["is not NAME=VALUE"]),
        (["--co", "BLOCKSIZE=500"], ["COG cannot be written", "blocksize"]),
        (
            ["--co", "tiling_scheme=GoogleMapsCompatible"],
            ["--co TILING_SCHEME would change the grid"],
        ),
        (["--co", "DRIVER=PNG"], ["COG cannot be written"]),
        (["--bogus"], ["No such option"]),
        (["--tile", "wide"], ["neither a number of pixels nor auto"]),
        (["--bounds", "1 2 3"], ["is not 'left bottom right top'"]),
        (["--max-memory", "lots"], ["no size like 2GB"]),
        (["--max-memory", "2"], ["'2' is 2 bytes: use 1MB or more"]),
        (["--dtype", "float16"], ["--dtype float16 is for probabilities and the like"]),
        (["--stitch", "exact", "--overlap", "64"], ["leave out --overlap"]),
        (["--threshold", "roof=0.3"], ["no class is called 'roof'", "building"]),
    ],
)
def test_a_bad_option_is_a_usage_error(orthophoto, tmp_path, args, words):
    run = fcntile("predict", orthophoto, "-o", tmp_path / "mask.tif", *args)
    assert_refused(run, 2, *words)


@pytest.mark.parametrize(("shape", "tiles"), [((3, 700, 1), 2), ((3, 1, 700), 2), ((3, 1, 1), 1)])
def test_a_raster_of_one_pixel_width_is_fine(make_raster, noise, tmp_path, shape, tiles):
    run = fcntile("predict", make_raster(noise(*shape)), "-o", tmp_path / "mask.tif", "--json")
    assert json.loads(run.stdout)["tiles"] == tiles
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert mask.shape == shape[1:]


def test_a_raster_without_any_data_gives_a_mask_without_any(make_raster, noise, tmp_path):
    image = make_raster(noise(3, 700, 600) * 0, nodata=0)
    run = fcntile("predict", image, "-o", tmp_path / "mask.tif", "--json")
    summary = json.loads(run.stdout)
    assert summary["tiles"] == summary["skipped_tiles"] == 4
    assert summary["stage_seconds"]["infer"] == 0
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert (mask.read(1) == 255).all()


def test_another_ground_resolution_is_remarked_on(make_raster, noise, tmp_path):
    image = make_raster(
        noise(3, 20, 20), transform=rasterio.transform.from_origin(5e5, 9e6, 10, 10)
    )
    run = fcntile("predict", image, "-o", tmp_path / "mask.tif")
    assert run.returncode == 0
    assert run.stderr.startswith("WARNING: pixels of ")
    assert "10 m" in run.stderr
    assert run.stderr.count("\n") == 1
    assert fcntile("-q", "predict", image, "-o", tmp_path / "m.tif").stderr == ""


@pytest.mark.parametrize(("sign", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_the_run_at_once(make_raster, noise, tmp_path, sign, exit_code):
    image = make_raster(noise(3, 1000, 27000))  # so wide that a part takes seconds
    before = sorted(tmp_path.iterdir())
    command = [*FCNTILE, "predict", image, "-o", str(tmp_path / "mask.tif"), "--progress", "json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        run.stderr.readline()  # the first progress: all stages are at work
        run.send_signal(sign)
        time.sleep(0.2)
        run.send_signal(sign)
        assert run.wait(30) == exit_code
        assert "Traceback" not in run.stderr.read()
    assert sorted(tmp_path.iterdir()) == before


def test_in_the_background_of_a_script_an_interrupt_is_ignored(orthophoto, tmp_path):
    """A shell without job control starts it with SIGINT ignored; Ctrl-C is meant for others."""
    command = [*FCNTILE, "predict", orthophoto, "-o", str(tmp_path / "mask.tif")]
    run = subprocess.Popen(["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command])
    while run.poll() is None:
        time.sleep(0.1)
        run.send_signal(signal.SIGINT)
    assert run.returncode == 0
    assert (tmp_path / "mask.tif").exists()


def test_too_little_memory_is_said_with_what_would_do(orthophoto, tmp_path):
    run = fcntile("predict", orthophoto, "-o", tmp_path / "mask.tif", "--max-memory", "100MB")
    assert_refused(run, 5, "100 MB of memory are too little", "at least", "--tile")
