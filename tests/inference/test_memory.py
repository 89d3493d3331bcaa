"""What a run takes against what was said before, in processes of their own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from nets import NETWORKS, THIN
from program import WITH_NETS, assert_refused, predict_with_nets
from torch import nn

from fcntile.errors import OutOfMemoryError
from fcntile.inference.memory import SCATTERED, Need, choose_columns
from fcntile.models.footprint import footprint
from fcntile.models.registry import create_model


def test_a_swath_is_as_wide_as_fits():
    need = Need(fixed=400e6, column=1e4)
    assert choose_columns(need, 20_000, bound=600e6) == 20_000
    assert choose_columns(need, 20_001, bound=600e6) == 19_968  # whole blocks of 512 px
    with pytest.raises(OutOfMemoryError, match="at least 410 MB"):
        choose_columns(need, 20_000, bound=404e6)


def test_the_maps_of_a_net_are_those_it_holds_at_a_time():
    """A chain of layers holds the image, and input and output of the widest step."""
    net = create_model("probe", 3, 6).eval()
    image, held = torch.zeros(1, 3, 128, 128), []

    def weigh(layer, given, made):
        held.append(image.nbytes + made.nbytes + (given[0].nbytes if given[0] is not image else 0))

    # ReLUs overwrite what they are given
    hooks = [x.register_forward_hook(weigh) for x in net.layers if not isinstance(x, nn.ReLU)]
    with torch.inference_mode():
        net(image)
    for hook in hooks:
        hook.remove()
    assert footprint(net, 3).maps == max(held) / 128**2


@pytest.mark.parametrize("name", NETWORKS)
def test_dense_nets_alone_have_maps_of_many_sizes(name):
    held = footprint(create_model(name, 3, 2, **THIN[name]).eval(), 3)
    assert (held.by_size > SCATTERED * held.maps) == name.startswith("fc-densenet")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "bound"),
    [
        ("fc-densenet56", 2.7e9),
        ("fc-densenet56", 3.5e9),
        ("mirror-vgg", 4.2e9),
        ("deconvnet", 3.5e9),
    ],
)
def test_a_bound_holds_for_nets_of_full_width(
    make_raster, make_model, noise, tmp_path, arch, bound
):
    """Holes in a heap, weights that are turned and folded, and weights laid out in each pass."""
    image, model = make_raster(noise(3, 1251, 1003)), make_model(arch, classes=4)
    args = (image, "-o", tmp_path / "m.tif", "--model", model, "--threads", 2, "--max-memory")
    assert predict_with_nets(*args, int(bound))["peak_rss_mb"] * 1e6 <= 1.15 * bound


def write_vrt(path, image, side):
    """Write a square VRT in which a raster is repeated; its files are small, whatever its size."""
    with rasterio.open(image) as raster:
        height, width, bands = raster.height, raster.width, raster.count
    lines = [f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}">']
    lines.append("<SRS>EPSG:32637</SRS>")
    lines.append("<GeoTransform>500000, 0.15, 0, 9000000, 0, -0.15</GeoTransform>")
    for band in range(1, bands + 1):
        colour = ["Red", "Green", "Blue"][band - 1]
        lines.append(f'<VRTRasterBand dataType="Byte" band="{band}">')
        lines.append(f"<ColorInterp>{colour}</ColorInterp>")
        for y in range(0, side, height):
            for x in range(0, side, width):
                w, h = min(width, side - x), min(height, side - y)
                lines.append(
                    f'<SimpleSource><SourceFilename relativeToVRT="0">{image}</SourceFilename>'
                    f"<SourceBand>{band}</SourceBand>"
                    f'<SrcRect xOff="0" yOff="0" xSize="{w}" ySize="{h}"/>'
                    f'<DstRect xOff="{x}" yOff="{y}" xSize="{w}" ySize="{h}"/></SimpleSource>'
                )
        lines.append("</VRTRasterBand>")
    path.write_text("\n".join([*lines, "</VRTDataset>"]))
    return path


@pytest.fixture
def wide(make_raster, noise):
    """Return a raster wide enough for several swaths of little memory."""
    options = {"compress": "lzw", "tiled": True, "blockxsize": 512, "blockysize": 512}
    return make_raster(np.repeat(noise(3, 1100, 3000), 8, axis=2), **options)


@pytest.mark.parametrize(
    ("classes", "bound"), [(21, 800e6), pytest.param(2, 700e6, marks=pytest.mark.slow)]
)
def test_the_memory_said_is_the_memory_kept_to(wide, make_model, tmp_path, classes, bound):
    model = make_model("probe", classes=classes)
    args = (wide, "-o", tmp_path / "narrow.tif", "--model", model, "--max-memory", int(bound))
    said = predict_with_nets(*args, "--dry-run")
    assert said["swath"] < said["width"]
    assert said["memory_mb"] * 1e6 <= bound
    kept = predict_with_nets(*args)
    assert kept["peak_rss_mb"] * 1e6 <= 1.15 * bound
    assert kept["parts"] > 3
    free = predict_with_nets(wide, "-o", tmp_path / "whole.tif", "--model", model)
    assert free["tiles"] < kept["tiles"]
    assert (tmp_path / "narrow.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "bound"), [(2, 1e9), (21, 2e9)])
def test_a_raster_of_forty_gigapixels_starts_and_streams(
    make_raster, make_model, noise, tmp_path, classes, bound
):
    options = {"compress": "lzw", "tiled": True, "blockxsize": 512, "blockysize": 512}
    image = write_vrt(tmp_path / "huge.vrt", make_raster(noise(3, 8192, 8192), **options), 200_000)
    model = make_model("probe", classes=classes)
    out = tmp_path / "mask.tif"
    command = [sys.executable, "-c", WITH_NETS, "-q", "predict", str(image), "-o", str(out)]
    command += ["--model", str(model), "--max-memory", str(int(bound))]
    with subprocess.Popen(command) as run:
        peak, parts = 0, 0
        while parts < 6:
            assert run.poll() is None
            status = Path(f"/proc/{run.pid}/status").read_text()
            peak = max(peak, *(int(x.split()[1]) for x in status.splitlines() if "VmHWM" in x), 0)
            parts = len(list(tmp_path.glob("mask.tif.parts/*.tif")))
        run.kill()
    assert peak * 1024 <= 1.15 * bound


LIMITED = """
import re, resource
import fcntile.predict
size = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
limit = size + 700_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
"""


def test_a_batch_that_does_not_fit_is_halved(make_raster, noise, tmp_path):
    """Under a limit on the address space the allocation fails as on a small machine."""
    image, out = make_raster(noise(3, 2048, 2048)), tmp_path / "mask.tif"
    limited = LIMITED.replace("700_", "400_")
    command = [sys.executable, "-c", limited + WITH_NETS, "predict", image, "-o", str(out)]
    more = ["--tile", "64", "--overlap", "0", "--threads", "1", "--batch-size", "4096"]
    run = subprocess.run([*command, *more], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "too little memory for 1024 tiles at a time: going on with 512" in run.stderr
    expected = tmp_path / "expected.tif"
    predict_with_nets(image, "-o", expected, "--tile", 64, "--overlap", 0)
    with rasterio.open(out) as made, rasterio.open(expected) as wanted:
        assert (made.read(1) != wanted.read(1)).mean() < 1e-5


def test_a_batch_is_no_larger_than_the_grid_or_the_memory(make_raster, noise, tmp_path):
    out = tmp_path / "mask.tif"
    one = make_raster(noise(3, 100, 120))
    assert predict_with_nets(one, "-o", out, "--batch-size", 64, "--dry-run")["memory_mb"] < 1000
    large = make_raster(np.zeros((3, 16000, 16000), np.uint8), tiled=True, sparse_ok=True)
    command = [sys.executable, "-c", WITH_NETS, "predict", large, "-o", str(out)]
    run = subprocess.run([*command, "--batch-size", "999"], capture_output=True, text=True)
    assert_refused(run, 5, "of memory are too little", "at least")


def test_a_tile_that_does_not_fit_is_an_error_with_advice(make_raster, noise, tmp_path):
    out = tmp_path / "mask.tif"
    image = make_raster(noise(3, 3750, 3750))
    command = [sys.executable, "-c", LIMITED + WITH_NETS, "predict", image, "-o", str(out)]
    run = subprocess.run([*command, "--tile", "4096"], capture_output=True, text=True)
    assert_refused(run, 5, "too little memory", "4000 px", "--tile 1984")
    assert not list(tmp_path.glob("mask*"))


def test_memory_is_weighed_without_importing_the_compiler():
    code = """
import sys
from fcntile.models.footprint import footprint
from fcntile.models.model_file import load_model
assert footprint(load_model("buildings").net, 3).maps > 0
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
