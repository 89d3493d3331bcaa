"""Rasters and models that a reader can picture."""

import signal
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from nets import save_test_model
from rasterio.transform import from_origin

DATA = Path(__file__).parent / "data"
DEMO = Path(__file__).parents[1] / "docs" / "demo"

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of a script
    signal.signal(signal.SIGINT, signal.default_int_handler)  # programs started here obey it, too

torch.set_num_threads(1)  # tests have a process for each CPU: threads would wait for one another


@pytest.fixture
def make_raster(tmp_path):
    """Write (bands, H, W) pixels to a GeoTIFF; by default EPSG:32637, 0.15 m, north up."""

    def make(pixels, name="image.tif", *, mask=None, colorinterp=None, **profile):
        path = tmp_path / name
        bands, height, width = pixels.shape
        defaults = {"crs": "EPSG:32637", "transform": from_origin(500_000, 9_000_000, 0.15, 0.15)}
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=width,
            height=height,
            count=bands,
            dtype=pixels.dtype,
            **{**defaults, **profile},
        ) as raster:
            raster.write(pixels)
            if mask is not None:
                raster.write_mask(mask)
            if colorinterp is not None:
                raster.colorinterp = colorinterp
        return str(path)

    return make


@pytest.fixture
def make_model(tmp_path):
    """Write a model file with a net of nets.py."""

    def make(arch="pixel", name=None, **more):
        return save_test_model(tmp_path / (name or f"{arch}.safetensors"), arch, **more)

    return make


@pytest.fixture
def noise():
    """Return uint8 noise of a shape, always the same."""
    return lambda *shape, seed=0: np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture
def orthophoto():
    """Return the real orthophoto that the repository ships: 512 x 1024 px, RGB."""
    return str(DEMO / "philippines_1.tif")
