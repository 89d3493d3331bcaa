"""A whole run on a device whose memory is not the host's."""

import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from nets import THIN
from program import WITH_NETS, fcntile
from torch.utils import backend_registration

TESTS = Path(__file__).parents[1]
ON_DEVICE = [sys.executable, str(Path(__file__).parent / "other_device.py")]
PRODUCTS = ("probabilities", "confidence", "entropy", "logits")

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no devices made in Python",
)


def made_on(device, image, model, folder, *options):
    """Predict with all outputs; return them, and what was said of waiting."""
    files = {name: folder / f"{device}-{name}.tif" for name in ("mask", *PRODUCTS)}
    wishes = [word for name in PRODUCTS for word in (f"--{name}", files[name])]
    start = ON_DEVICE if device == "elsewhere" else [sys.executable, "-c", WITH_NETS]
    command = ["predict", image, "-o", files["mask"], "--model", model, "--device", device]
    run = fcntile(*command, *wishes, *options, start=start, env={"PYTHONPATH": str(TESTS)})
    assert run.returncode == 0, run.stderr
    read = []
    for path in files.values():
        with rasterio.open(path) as raster:
            read.append(raster.read())
    return read, run.stderr


@pytest.mark.parametrize("device", ["elsewhere", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("pixel", ["--batch-size", 3, "--threshold", "class 1=0.4"]),
        ("fcn8s", ["--dtype", "float32"]),
    ],
)
def test_another_device_makes_what_the_host_makes(
    make_raster, make_model, tmp_path, arch, options, device
):
    """Rows are waited for by who writes them; who feeds the device never waits for it."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 256, (3, 300, 450), np.uint8)
    pixels[:, 40:170, 90:330] = 0
    image = make_raster(pixels, nodata=0)
    model = make_model(arch, arch_options=THIN.get(arch, {}), tile=128, overlap=32)
    host, _ = made_on("cpu", image, model, tmp_path, *options)
    there, said = made_on(device, image, model, tmp_path, *options)
    assert device == "cuda" or said.endswith("waiting: MainThread\n")
    assert (host[0] == 255).any() and not (host[0] == 255).all()
    assert (host[0] != there[0]).mean() <= (0 if arch == "pixel" else 1e-4)
    for ours, theirs in zip(host[1:], there[1:], strict=True):
        if ours.dtype == np.uint8:
            assert np.abs(ours.astype(int) - theirs).max() <= 1
        else:
            assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-4, equal_nan=True)
