"""Rasters behind a URL: the same mask as from disk, whatever the server does meanwhile.

The command runs in a process of its own: rasterio opens files without releasing the interpreter,
so a server in the same process could not answer.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.shutil
import shapely
from program import FCNTILE, assert_refused, fcntile
from range_server import RangeServer

from fcntile.raster.gdal import open_raster
from fcntile.raster.parts import parts_folder

OPTIONS = ["--tile", "256", "--overlap", "32", "--threads", "2"]


def predict(image, out, *more, **env):
    """Run the command; return the finished process."""
    return fcntile("-q", "predict", image, "-o", out, *OPTIONS, *more, env=env)


@pytest.fixture
def make_image(orthophoto, make_raster):
    """Write orthophotos beside and below each other, as GDAL's creation options have it."""

    def make(below, beside=2, **options):
        with rasterio.open(orthophoto) as raster:
            return Path(make_raster(np.tile(raster.read(), (1, below, beside)), **options))

    return make


def mask_of(image, tmp_path):
    """Return the bytes of the mask made from disk."""
    out = tmp_path / "local.tif"
    run = predict(image, out)
    assert run.returncode == 0, run.stderr
    return out.read_bytes()


@pytest.mark.parametrize(
    ("failure", "threads"),
    [
        ("503", {"GDAL_NUM_THREADS": "4"}),
        pytest.param("reset", {}, marks=pytest.mark.slow),
        pytest.param("503", {}, marks=pytest.mark.slow),
        pytest.param("reset", {"GDAL_NUM_THREADS": "4"}, marks=pytest.mark.slow),
    ],
)
def test_failing_requests_are_sent_again(make_image, tmp_path, failure, threads):
    """Uncompressed: nothing but the pixels would tell that GDAL has made some of them up."""
    image = make_image(1, tiled=True, blockxsize=256, blockysize=256, interleave="band")
    out = tmp_path / "remote.tif"
    with RangeServer(tmp_path, fail_every=5, failure=failure) as server:
        run = predict(server.url(image.name), out, **threads)
    assert run.returncode == 0, run.stderr
    assert sum(server.statuses()[status] for status in (503, "reset")) >= 4
    assert out.read_bytes() == mask_of(image, tmp_path)


def write_mosaic(path, image, url):
    """Write a VRT of the file behind a URL."""
    rasterio.shutil.copy(image, path, driver="VRT")
    text = path.read_text().replace('relativeToVRT="1"', 'relativeToVRT="0"')
    path.write_text(text.replace(">image.tif<", f">/vsicurl/{url}<"))


def write_nested_mosaic(path, image, url):
    """Write a VRT of such a VRT, with a name that does not tell it."""
    write_mosaic(path.with_name("inner.xml"), image, url)
    rasterio.shutil.copy(image, path, driver="VRT")
    path.write_text(path.read_text().replace(">image.tif<", ">inner.xml<"))


def write_index(path, image, url):
    """Write an index of tiles, whose one tile is the file behind a URL."""
    with rasterio.open(image) as raster:
        (x, y), crs, box = raster.res, raster.crs.to_wkt(), shapely.box(*raster.bounds)
    pyogrio.raw.write(
        path,
        np.array([shapely.to_wkb(box)], object),
        [np.array([f"/vsicurl/{url}"], object)],
        ["location"],
        driver="GPKG",
        geometry_type="Polygon",
        crs=crs,
        layer_metadata={"LOCATION_FIELD": "location", "RESX": str(x), "RESY": str(y)},
    )


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("mosaic.vrt", write_mosaic),
        ("outer.vrt", write_nested_mosaic),
        ("index.gti.gpkg", write_index),
    ],
)
def test_a_mosaic_of_files_behind_a_url_is_as_safe(make_image, tmp_path, name, write):
    image = make_image(1, tiled=True, blockxsize=256, blockysize=256, interleave="band")
    out, mosaic = tmp_path / "remote.tif", tmp_path / name
    with RangeServer(tmp_path, fail_every=5) as server:
        write(mosaic, image, server.url(image.name))
        run = predict(mosaic, out)
    assert run.returncode == 0, run.stderr
    assert server.statuses()[503] >= 4
    with rasterio.open(out) as mask:
        remote = mask.read(1)
    mask_of(image, tmp_path)
    with rasterio.open(tmp_path / "local.tif") as mask:
        assert (remote == mask.read(1)).all()


def test_a_worker_asks_again_for_the_first_bytes_too(make_image, tmp_path):
    image = make_image(1)
    work = (
        "import sys, rasterio; from fcntile.raster.gdal import settings_of_process\n"
        "with settings_of_process(sys.argv[1], 2, 1 << 26), rasterio.open(sys.argv[1]) as raster:\n"
        "    print(raster.width)"
    )
    with RangeServer(tmp_path, fail_every=2) as server:
        command = [sys.executable, "-c", work, server.url(image.name)]
        run = subprocess.run(command, capture_output=True, text=True)
    assert run.stdout and server.statuses()[503] >= 2, run.stderr


def test_labels_behind_a_url_are_as_safe(make_raster, tmp_path):
    classes = np.kron(np.arange(256).reshape(1, 16, 16) % 3, np.ones((1, 64, 64))).astype(np.uint8)
    profile = {"tiled": True, "blockxsize": 256, "blockysize": 256}
    mask = make_raster(classes, "mask.tif", **profile)
    make_raster(classes, "labels.tif", **profile)
    with RangeServer(tmp_path, fail_every=4) as server:
        labels, env = server.url("labels.tif"), {"GDAL_NUM_THREADS": "4"}
        run = fcntile("evaluate", mask, labels, "--json", env=env)
    assert run.returncode == 0, run.stderr
    assert server.statuses()[503] >= 3
    assert json.loads(run.stdout)["pixel_accuracy"] == 1


def test_a_mask_beside_the_raster_is_found(make_image, tmp_path):
    image = make_image(1, tiled=True, compress="deflate")
    with rasterio.open(image) as raster:
        valid = np.zeros(raster.shape, np.uint8)
    valid[100:400, 50:700] = 255
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(image, "r+") as raster:
        raster.write_mask(valid)
    assert image.with_name(f"{image.name}.msk").exists()
    out = tmp_path / "remote.tif"
    with RangeServer(tmp_path, fail_every=3) as server:
        run = predict(server.url(image.name), out)
    assert run.returncode == 0, run.stderr
    assert out.read_bytes() == mask_of(image, tmp_path)
    with rasterio.open(out) as mask:
        assert ((mask.read(1) != 255) == (valid != 0)).all()


def test_a_server_that_dies_leaves_parts_to_go_on_from(make_image, tmp_path):
    image = make_image(8, 4, compress="deflate", tiled=True, blockxsize=512, blockysize=512)
    out, whole, impatient = (
        tmp_path / "remote.tif",
        image.read_bytes(),
        {"GDAL_HTTP_MAX_RETRY": "1"},
    )
    expected = mask_of(image, tmp_path)
    with RangeServer(tmp_path) as server:
        url = server.url(image.name)
        server.die_after_bytes = len(whole) * 0.75
        assert_refused(predict(url, out, **impatient), 3, "cannot read rows", url)
        kept = {path.name for path in parts_folder(out).glob("*.tif")}
        assert kept
        assert not out.exists()

        server.die_after_bytes = None
        with rasterio.open(image, "r+") as raster:  # another raster: one pixel in the last block
            raster.write(raster.read(window=((-2, -1), (-2, -1))) ^ 1, window=((-2, -1), (-2, -1)))
        assert_refused(predict(url, out), 6, "raster was", "--restart")
        image.write_bytes(whole)
        run = predict(url, out, "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["resumed_parts"] >= len(kept)
    assert out.read_bytes() == expected


def test_a_server_that_says_nothing_is_asked_again(make_image, tmp_path):
    image = make_image(1, compress="deflate", tiled=True, blockxsize=512, blockysize=512)
    out, impatient = tmp_path / "remote.tif", {"GDAL_HTTP_LOW_SPEED_TIME": "1"}
    with RangeServer(tmp_path, hang_every=10) as server:
        run = predict(server.url(image.name), out, **impatient)
    assert run.returncode == 0, run.stderr
    assert server.statuses()["hung"] >= 1
    assert out.read_bytes() == mask_of(image, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_read_that_hangs_keeps_nobody_from_leaving(make_image, tmp_path, number):
    """What waits for a server cannot be stopped; the process can."""
    image = make_image(8, 4, compress="deflate", tiled=True, blockxsize=512, blockysize=512)
    out = tmp_path / "remote.tif"
    with RangeServer(tmp_path) as server:
        url = server.url(image.name)
        command = [*FCNTILE, "-q", "predict", url, "-o", str(out), *OPTIONS]
        run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while len(list(parts_folder(out).glob("*.tif"))) < 1:
            assert run.poll() is None
            time.sleep(0.05)
        server.hang_every = 1
        while not server.statuses()["hung"]:
            assert run.poll() is None
            time.sleep(0.05)
        time.sleep(0.5)
        asked = time.monotonic()
        run.send_signal(number)
        said = run.communicate(timeout=60)[1]
    assert run.returncode == 128 + number
    assert time.monotonic() - asked < 10
    assert "Traceback" not in said
    assert "what is finished is kept" in said
    assert list(parts_folder(out).glob("*.tif"))


@pytest.mark.parametrize(
    "layout",
    [
        {"tiled": True, "blockxsize": 512, "blockysize": 512},
        {"tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "band"},
        {"tiled": False},
    ],
)
def test_few_requests_are_sent_and_no_block_is_asked_for_twice(
    make_raster, noise, tmp_path, layout
):
    image = Path(make_raster(noise(3, 1500, 2048), compress="deflate", **layout))
    with RangeServer(tmp_path) as server:
        run = predict(server.url(image.name), tmp_path / "mask.tif")
    assert run.returncode == 0, run.stderr
    assert 0.99 < server.sent(image.name) / image.stat().st_size < 1.3
    assert sum(name == image.name for _, name, *_ in server.log) < 60
    assert len(server.log) < 110  # sidecars: masks, statistics, RPCs of a dozen vendors


def test_the_environment_wins(orthophoto, tmp_path, monkeypatch):
    with open_raster(orthophoto):
        assert rasterio.env.getenv()["GDAL_HTTP_MAX_RETRY"] == 6
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    with open_raster(orthophoto):
        assert "GDAL_HTTP_MAX_RETRY" not in rasterio.env.getenv()
        assert rasterio.env.getenv()["GDAL_HTTP_RETRY_DELAY"] == 0.25
