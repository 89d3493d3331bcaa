import numpy as np
import pytest
import rasterio

from fcntile.inference.engine import Engine
from fcntile.predict import predict


@pytest.mark.parametrize("stitch", ["cosine", "exact"])
def test_weights_are_laid_out_for_a_tile_of_the_grid(
    make_raster, make_model, noise, tmp_path, monkeypatch, stitch
):
    sizes, run = [], Engine._run

    def spy(engine, x):
        sizes.append(tuple(x.shape[2:]))
        return run(engine, x)

    monkeypatch.setattr(Engine, "_run", spy)
    image, model = make_raster(noise(3, 150, 1000)), make_model("probe", classes=6)
    options = {"model": model, "tile": 512, "stitch": stitch}
    predict(image, tmp_path / "a.tif", **options)
    usual = sizes.copy()
    sizes.clear()
    predict(image, tmp_path / "b.tif", **options, precision="bf16")
    assert sizes[0] == max(usual)
    assert sorted(sizes[1:]) == sorted(usual)


def test_pixels_that_are_tried_again_are_normalised_once(
    make_raster, make_model, tmp_path, monkeypatch
):
    failures, run = [], Engine._run

    def flaky(engine, x):
        if not failures:
            failures.append(x)
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return run(engine, x)

    pixels = np.random.default_rng(0).normal(120, 20, (3, 64, 300)).astype(np.float32)
    image = make_raster(pixels)
    model = make_model("pixel", dtype="float32")
    options = {"model": model, "tile": 64, "overlap": 0, "batch_size": 2, "threads": 1}
    predict(image, tmp_path / "a.tif", **options)
    monkeypatch.setattr(Engine, "_run", flaky)
    predict(image, tmp_path / "b.tif", **options)
    assert failures
    with rasterio.open(tmp_path / "a.tif") as a, rasterio.open(tmp_path / "b.tif") as b:
        expected = a.read()
        assert len(np.unique(expected)) > 1
        assert np.array_equal(b.read(), expected)
