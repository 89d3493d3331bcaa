"""The stitched mask against an independent forward pass over the whole raster."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from program import predict_with_nets
from rasterio.windows import Window

from fcntile.errors import InputError, OptionError
from fcntile.inference.grid import plan_tiling
from fcntile.models.model_file import load_model
from fcntile.predict import predict


def read_mask(path):
    with rasterio.open(path) as mask:
        return mask.read(1)


def untiled_logits(model, pixels):
    """Return the logits of a whole raster, (classes, H, W), by the card's own words."""
    mean = np.array([band.mean for band in model.card.bands], np.float32)[:, None, None]
    std = np.array([band.std for band in model.card.bands], np.float32)[:, None, None]
    x = (pixels.astype(np.float32) - mean) / std
    with torch.inference_mode():
        return model.net(torch.from_numpy(x)[None])[0].numpy()


SIZES = st.one_of(
    st.integers(1, 1537),
    st.sampled_from([1, 2, 511, 512, 513, 896, 897, 1023, 1024, 1025, 1535, 1536, 1537]),
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    height=SIZES,
    width=SIZES,
    overlap=st.sampled_from([0, 1, 64, 128, 256]),
    batch_size=st.sampled_from([1, 7]),
)
def test_a_pixelwise_net_gives_the_untiled_mask_in_every_pixel(
    make_raster, make_model, noise, tmp_path, height, width, overlap, batch_size
):
    pixels = noise(3, height, width)
    image, model = make_raster(pixels), make_model("pixel", classes=4)
    out = tmp_path / "mask.tif"
    predict(image, out, model=model, overlap=overlap, batch_size=batch_size, overwrite=True)
    expected = untiled_logits(load_model(model), pixels).argmax(0)
    assert np.array_equal(read_mask(out), expected)


@pytest.mark.parametrize("shape", [(1500, 1100), (513, 300), (40, 2000)])
@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("overlap", [None, 128])
def test_with_the_halo_as_guard_the_mask_is_that_of_the_untiled_raster(
    make_raster, make_model, noise, tmp_path, shape, holes, overlap
):
    pixels = noise(3, *shape)
    model = make_model("probe", classes=6)
    mask = noise(*shape, seed=1) < 250 if holes else None
    image = make_raster(pixels, mask=mask)
    summary = predict(image, tmp_path / "mask.tif", model=model, overlap=overlap)

    tiling = plan_tiling(*shape, 512, overlap or 2 * 16, net_stride=4, halo=16)
    assert tiling.x.guard == 16
    assert summary.compute_factor == round(tiling.compute_factor, 3)
    beyond = (0, tiling.y.padded - shape[0]), (0, tiling.x.padded - shape[1])
    if holes:
        pixels = np.where(mask, pixels, 128)  # the mean, which is 0 after normalisation
    padded = np.pad(pixels, ((0, 0), *beyond), mode="reflect")
    logits = untiled_logits(load_model(model), padded)[:, : shape[0], : shape[1]]
    best = np.sort(logits, axis=0)
    clear = best[-1] - best[-2] > 1e-4
    expected = logits.argmax(0)
    if holes:
        expected = np.where(mask, expected, 255)
    found = read_mask(tmp_path / "mask.tif")
    assert (found == expected)[clear].all()
    assert (found != expected).mean() < 1e-5


@pytest.mark.parametrize("shape", [(896, 992), (1100, 700)])
def test_more_overlap_than_the_net_sees_changes_nothing_but_the_rim(
    make_raster, make_model, noise, tmp_path, shape
):
    """At 896 px the tiles end with the raster if they overlap by 128 px, at 992 px if by 32."""
    image, model = make_raster(noise(3, *shape)), make_model("probe", classes=6)
    predict(image, tmp_path / "a.tif", model=model)
    predict(image, tmp_path / "b.tif", model=model, overlap=128)
    differs = read_mask(tmp_path / "a.tif") != read_mask(tmp_path / "b.tif")
    assert differs[:-16, :-16].mean() < 1e-5


def test_labels_do_not_depend_on_batches_or_threads(orthophoto, tmp_path):
    for name, options in {
        "a": {"threads": 1},
        "b": {"threads": 2},
        "c": {"threads": 1, "batch_size": 3},
        "d": {"threads": 2, "batch_size": 7},
    }.items():
        predict(orthophoto, tmp_path / f"{name}.tif", tile=256, overlap=64, **options)
    first = read_mask(tmp_path / "a.tif")
    assert np.array_equal(read_mask(tmp_path / "b.tif"), first)
    for name in "cd":
        assert (read_mask(tmp_path / f"{name}.tif") != first).mean() < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_command_twice_gives_the_same_bytes(orthophoto, tmp_path, precision):
    predict(orthophoto, tmp_path / "a.tif", precision=precision)
    predict(orthophoto, tmp_path / "b.tif", precision=precision)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_bfloat16_changes_a_label_in_a_thousand_at_most(orthophoto, tmp_path):
    predict(orthophoto, tmp_path / "a.tif")
    predict(orthophoto, tmp_path / "b.tif", precision="bf16")
    differs = read_mask(tmp_path / "a.tif") != read_mask(tmp_path / "b.tif")
    assert 0 < differs.mean() < 0.001


def test_the_bundled_model_finds_the_buildings(orthophoto, tmp_path):
    predict(orthophoto, tmp_path / "mask.tif")
    labels = read_mask(orthophoto.replace(".tif", "_label.tif"))
    mask = read_mask(tmp_path / "mask.tif")
    seen = labels != 255
    mask, labels = mask[seen], labels[seen]
    iou = [
        ((mask == k) & (labels == k)).sum() / ((mask == k) | (labels == k)).sum() for k in (0, 1)
    ]
    assert np.mean(iou) > 0.8  # all background gives 0.44


def test_the_raster_is_compared_with_the_rim_reflected_not_black(make_model, make_raster, tmp_path):
    """A raster of one colour gives one class up to the last pixel of a net that sees its rim."""
    pixels = np.full((3, 700, 600), 200, np.uint8)
    predict(make_raster(pixels), tmp_path / "mask.tif", model=make_model("probe", classes=6))
    inside = read_mask(tmp_path / "mask.tif")[32:, 32:]  # the upper left rim is the net's padding
    assert (inside == inside[0, 0]).all()


@pytest.mark.parametrize(
    ("dtype", "mean", "std"),
    [("uint16", 20000.0, 9000.0), ("int16", 0.0, 900.0), ("float32", 0.5, 0.1)],
)
def test_other_dtypes_are_read_as_they_are(make_raster, make_model, tmp_path, dtype, mean, std):
    rng = np.random.default_rng(0)
    pixels = (mean + std * rng.standard_normal((4, 300, 200))).astype(dtype)
    model = make_model("pixel", bands=4, dtype=dtype, mean=mean, std=std)
    predict(make_raster(pixels), tmp_path / "mask.tif", model=model, tile=128, overlap=32)
    logits = untiled_logits(load_model(model), pixels)
    best = np.sort(logits, axis=0)
    clear = best[-1] - best[-2] > 1e-3
    assert (read_mask(tmp_path / "mask.tif") == logits.argmax(0))[clear].all()


def test_bands_go_to_the_channels_they_are_named_for(make_raster, make_model, noise, tmp_path):
    pixels = noise(5, 40, 30)
    model = make_model("pixel")
    predict(make_raster(pixels), tmp_path / "mask.tif", model=model, bidx=[4, 1, 3])
    expected = untiled_logits(load_model(model), pixels[[3, 0, 2]]).argmax(0)
    assert np.array_equal(read_mask(tmp_path / "mask.tif"), expected)


def test_more_classes_than_a_byte_holds_make_a_uint16_mask(
    make_raster, make_model, noise, tmp_path
):
    pixels, seen = noise(3, 300, 200), noise(300, 200, seed=1) < 250
    model = make_model("pixel", classes=300, seed=14)
    image = make_raster(pixels, mask=seen)
    predict(image, tmp_path / "mask.tif", model=model, tile=128, overlap=32)
    expected = untiled_logits(load_model(model), pixels).argmax(0)
    assert {254, 255, 259} <= set(np.unique(expected))  # 255 is a class like any other
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert (mask.dtypes, mask.nodata) == (("uint16",), 65535)
        assert np.array_equal(mask.read(1), np.where(seen, expected, 65535))
        assert np.array_equal(mask.read_masks(1) > 0, seen)


@pytest.mark.parametrize(
    ("values", "dtype", "nodata"),
    [
        ((11, 21, 42), "uint8", 255),
        ((2, 0, 1), "uint8", 255),
        ((0, 255), "uint16", 65535),
        ((65533, 300, 11), "uint16", 65535),
    ],
)
def test_a_mask_has_the_values_of_the_card(
    make_raster, make_model, noise, tmp_path, values, dtype, nodata
):
    pixels, seen = noise(3, 300, 200), noise(300, 200, seed=1) < 250
    model = make_model("pixel", values=values)
    image = make_raster(pixels, mask=seen)
    predict(image, tmp_path / "mask.tif", model=model, tile=128, overlap=32)
    loaded = load_model(model)
    best = untiled_logits(loaded, pixels).argmax(0)
    assert set(np.unique(best)) == set(range(len(values)))
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert (mask.dtypes, mask.nodata) == ((dtype,), nodata)
        assert np.array_equal(mask.read(1), np.where(seen, np.array(values)[best], nodata))
        for value, c in zip(values, loaded.card.classes, strict=True):
            assert mask.tags(1)[f"CLASS_{value}"] == c.name
            assert mask.colormap(1)[value] == (*c.rgb, 255)


def test_tiles_without_data_are_never_inferred(make_raster, make_model, noise, tmp_path):
    valid = np.zeros((600, 900), bool)
    valid[40:50, 500:620] = True
    image = make_raster(noise(3, 600, 900), mask=valid)
    model = make_model("pixel")
    summary = predict(image, tmp_path / "mask.tif", model=model, tile=64, overlap=0)
    assert (summary.tiles, summary.skipped_tiles) == (10 * 15, 10 * 15 - 3)
    assert np.array_equal(read_mask(tmp_path / "mask.tif") == 255, ~valid)


def test_the_summary_adds_up(orthophoto, tmp_path):
    seen = []
    summary = predict(
        orthophoto, tmp_path / "mask.tif", progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert (summary.width, summary.height, summary.tiles) == (512, 1024, 3)
    assert summary.model == "buildings"
    assert {"read", "infer", "blend", "write"} < summary.stage_seconds.keys()
    assert 0 < summary.stage_seconds["infer"] < 100 * summary.seconds


def test_a_python_program_keeps_its_threads(orthophoto, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        predict(Path(orthophoto), tmp_path / "mask.tif")
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as other:
            assert other.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)


def test_the_mask_says_how_it_was_made(orthophoto, tmp_path):
    predict(orthophoto, tmp_path / "mask.tif")
    with rasterio.open(tmp_path / "mask.tif") as mask:
        tags = mask.tags()
    assert tags["FCNTILE_MODEL"] == "buildings"
    assert tags["FCNTILE_MODEL_SHA256"] == load_model("buildings").sha256
    assert json.loads(tags["FCNTILE_OPTIONS"])["tile"] == 512
    assert "OpenStreetMap" in tags["FCNTILE_MODEL_ATTRIBUTION"]


def test_options_that_do_not_suit_the_net_are_refused(orthophoto, tmp_path):
    with pytest.raises(OptionError, match="multiple of the net's stride"):
        predict(orthophoto, tmp_path / "mask.tif", tile=500)
    assert not list(tmp_path.iterdir())


def test_a_damaged_raster_leaves_nothing_behind(tmp_path, make_model):
    corrupt = Path(__file__).parent / "data" / "corrupt.tif"
    model = make_model("pixel")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="cannot read rows"):
        predict(str(corrupt), tmp_path / "mask.tif", model=model)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.gpu
@pytest.mark.parametrize("batch_size", [1, 3])
def test_cpu_and_cuda_agree(orthophoto, tmp_path, batch_size):
    predict(orthophoto, tmp_path / "cpu.tif", device="cpu")
    predict(orthophoto, tmp_path / "cuda.tif", device="cuda", batch_size=batch_size)
    # float32 in another order: only labels that tie to the fourth digit may differ
    assert (read_mask(tmp_path / "cpu.tif") != read_mask(tmp_path / "cuda.tif")).mean() < 1e-4


# --- memory -----------------------------------------------------------------------------------


def write_large(path, width, height):
    """Write a textured raster strip by strip."""
    strip = np.random.default_rng(0).integers(0, 256, (3, 512, width), np.uint8)
    options = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "lzw"}
    profile = {"width": width, "height": height, "count": 3, "dtype": "uint8", "crs": "EPSG:32637"}
    transform = rasterio.transform.from_origin(5e5, 9e6, 0.15, 0.15)
    with rasterio.open(path, "w", driver="GTiff", transform=transform, **profile, **options) as f:
        for row in range(0, height, 512):
            f.write(strip[:, : height - row], window=Window(0, row, width, min(512, height - row)))
    return path


def test_memory_does_not_grow_with_height(tmp_path, make_model):
    model = make_model("probe", classes=6)
    peaks = []
    for height in (8192, 24576):  # by then the heap has its size; a kept mask would show
        image = write_large(tmp_path / f"{height}.tif", 4096, height)
        out = tmp_path / f"mask{height}.tif"
        peaks.append(predict_with_nets(image, "-o", out, "--model", model)["peak_rss_mb"])
    assert abs(peaks[1] - peaks[0]) < 64


@pytest.mark.slow
def test_a_raster_a_hundred_thousand_pixels_wide_fits_in_3_gb(tmp_path):
    image = write_large(tmp_path / "wide.tif", 100_000, 2048)
    summary = predict_with_nets(image, "-o", tmp_path / "mask.tif")
    assert summary["peak_rss_mb"] < 3000
