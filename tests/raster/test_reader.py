from dataclasses import replace

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin
from rasterio.windows import Window

from fcntile.errors import InputError
from fcntile.inference.tiling import Axis
from fcntile.raster.gdal import open_raster
from fcntile.raster.reader import choose_numbers, read_completed, read_strips, resolution


def strips_of(raster, bands, tile, stride, count, width=None, left=0):
    rows = [(top, top + tile) for top in range(0, count * stride, stride)]
    right = left + (width or max(tile, raster.width - left))
    return read_strips(raster, bands, rows, (left, right), last=right - tile)


@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    tile=st.integers(1, 32),
    data=st.data(),
)
def test_strips_are_the_raster_with_each_tile_mirrored_beyond_the_rim(
    make_raster, noise, height, width, tile, data
):
    overlap = data.draw(st.integers(0, tile // 2))
    stride = tile - overlap
    count = data.draw(st.integers(1, max(1, -(-(height - overlap) // stride))))
    left = data.draw(st.integers(0, width - 1))
    right = left + tile + stride * data.draw(st.integers(0, (width - left - 1) // stride))
    right = min(right, width - 1 + tile)  # the last tile begins in the raster
    pixels = noise(2, height, width)
    with open_raster(make_raster(pixels)) as raster:
        strips = list(strips_of(raster, [2, 1], tile, stride, count, right - left, left))
    assert len(strips) == count
    for k, strip in enumerate(strips):
        here = pixels[::-1, k * stride : k * stride + tile, left:right]  # bands 2, 1
        below, beside = tile - here.shape[1], right - left - here.shape[2]
        expected = np.pad(here, ((0, 0), (0, below), (0, 0)), mode="reflect")
        last = np.pad(
            expected[:, :, right - left - tile :], ((0, 0), (0, 0), (0, beside)), mode="reflect"
        )
        expected = np.concatenate([expected[:, :, : right - left - tile], last], axis=2)
        assert np.array_equal(strip.pixels.transpose(2, 0, 1), expected)
        assert strip.valid is None


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(1, 100),
    tile=st.integers(1, 32),
    share=st.floats(0, 0.5),
    beyond=st.integers(0, 32),
)
def test_tiles_that_are_cut_off_beyond_the_rim_are_the_first_pixels_of_whole_ones(
    make_raster, noise, size, tile, share, beyond
):
    axis = Axis(size, tile, int(share * tile))
    short = replace(axis, cut=size + beyond)
    pixels = noise(1, size, size)
    image = make_raster(pixels, mask=noise(size, size, seed=1) > 40)
    with open_raster(image) as raster:
        whole, cut_off = (
            list(
                read_strips(
                    raster,
                    [1],
                    [(a.start(k), a.stop(k)) for k in range(a.count)],
                    a.span(range(a.count)),
                    last=a.start(a.count - 1),
                )
            )
            for a in (axis, short)
        )
    for k, (large, small) in enumerate(zip(whole, cut_off, strict=True)):
        here = slice(short.length(k)), slice(short.padded)
        assert np.array_equal(small.pixels, large.pixels[here])
        assert np.array_equal(small.valid, large.valid[here])


@pytest.mark.parametrize("kind", ["nodata", "alpha", "internal mask", "external mask", "nan"])
def test_pixels_without_data_are_those_of_gdal(make_raster, noise, kind):
    holes = noise(70, 50, seed=1) > 200
    pixels = np.maximum(noise(3, 70, 50), 1)
    if kind == "nodata":
        path = make_raster(np.where(holes, 0, pixels), nodata=0)
    elif kind == "alpha":
        alpha = np.where(holes, 0, 255).astype(np.uint8)
        names = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
        path = make_raster(np.concatenate([pixels, alpha[None]]), colorinterp=names)
    elif kind == "nan":
        path = make_raster(np.where(holes, np.nan, pixels).astype(np.float32))
    else:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=kind == "internal mask"):
            path = make_raster(pixels, mask=~holes)
    with open_raster(path) as raster:
        bands = choose_numbers(raster, None)
        strips = strips_of(raster, bands, 32, 24, 3, 64)
        valid = np.concatenate([s.valid[:24] for s in strips])[:70, :50]
    assert bands == [1, 2, 3]
    assert np.array_equal(valid, ~holes)


def test_infinite_pixels_are_without_data(make_raster):
    pixels = np.ones((1, 8, 8), np.float32)
    pixels[0, 2, 3] = np.inf
    with open_raster(make_raster(pixels)) as raster:
        (strip,) = strips_of(raster, [1], 8, 8, 1, 8)
    assert np.argwhere(~strip.valid).tolist() == [[2, 3]]


def test_what_cannot_be_opened_is_named(tmp_path):
    path = tmp_path / "notes.tif"
    path.write_text("not a raster")
    with pytest.raises(InputError, match=r"cannot open .*notes\.tif"), open_raster(str(path)):
        pass
    with pytest.raises(InputError, match="No such file"), open_raster(str(tmp_path / "no.tif")):
        pass


def test_rows_that_cannot_be_read_are_named(make_raster, noise, tmp_path):
    path = make_raster(noise(1, 64, 64), blockysize=8, compress="deflate")
    whole = (tmp_path / "image.tif").read_bytes()
    (tmp_path / "image.tif").write_bytes(whole[: len(whole) // 2])
    with open_raster(path) as raster:
        strips = strips_of(raster, [1], 16, 16, 4, 64)
        with pytest.raises(InputError, match=r"cannot read rows \d+ to \d+ of .*image.tif"):
            list(strips)


@pytest.mark.parametrize(
    ("crs", "pixel", "expected"),
    [
        ("EPSG:32637", (0.15, 0.15), 0.15),
        ("EPSG:32637", (0.1, 0.4), 0.2),
        ("EPSG:2263", (1, 1), 0.3048),  # US survey feet
        ("EPSG:4326", (1e-5, 1e-5), 1.11108),  # 111,320 m x sqrt(cos 5 degrees) a degree
        (None, (1, 1), None),
    ],
)
def test_resolution_is_in_metres(make_raster, noise, crs, pixel, expected):
    path = make_raster(noise(1, 4, 4), crs=crs, transform=from_origin(5, 5, *pixel))
    with open_raster(path) as raster:
        assert resolution(raster) == (expected and pytest.approx(expected, rel=1e-4))


def test_the_block_cache_is_bounded_unless_the_user_sets_it(make_raster, noise, monkeypatch):
    monkeypatch.delenv("GDAL_CACHEMAX", raising=False)
    with open_raster(make_raster(noise(3, 64, 64))):
        assert int(rasterio.env.getenv()["GDAL_CACHEMAX"]) == 64 << 20
    monkeypatch.setenv("GDAL_CACHEMAX", "200")
    with open_raster(make_raster(noise(3, 64, 64))):
        assert "GDAL_CACHEMAX" not in rasterio.env.getenv()


@pytest.mark.parametrize(
    "window", [(3, 2, 5, 4), (3, 2, 30, 40), (0, 0, 9, 8), (8, 0, 4, 8), (-12, -3, 24, 9)]
)
def test_a_window_goes_on_beyond_the_rim_by_reflection(make_raster, noise, window):
    pixels = np.maximum(noise(2, 8, 9), 1)
    pixels[:, 5] = 0
    left, top, width, height = window
    with open_raster(make_raster(pixels, nodata=0)) as raster:
        made, valid = read_completed(raster, [2, 1], Window(*window))
    far = 60
    padded = np.pad(pixels[::-1], ((0, 0), (far, far), (far, far)), mode="reflect")
    expected = padded[:, far + top :, far + left :][:, :height, :width]
    assert np.array_equal(made.transpose(2, 0, 1), expected)
    assert np.array_equal(valid, expected.any(0))


@pytest.mark.filterwarnings("ignore:The dataset's nodata attribute is shadowing")
@pytest.mark.parametrize(
    ("bands", "dtype", "profile"),
    [
        pytest.param(3, "uint8", {"nodata": 0}, id="beside a nodata value"),
        pytest.param(4, "uint8", {}, id="one of five"),
        pytest.param(3, "int16", {}, id="int16"),
        pytest.param(3, "float32", {}, id="float32"),
        pytest.param(1, "uint32", {}, id="uint32"),
    ],
)
def test_alpha_is_obeyed_where_gdal_makes_no_mask_of_it(make_raster, noise, bands, dtype, profile):
    pixels = np.maximum(noise(bands, 40, 50), 1).astype(dtype)
    alpha = np.full((1, 40, 50), 255, dtype)
    alpha[0, 5:20, 7:30] = 0
    profile = {**profile, "photometric": "minisblack", "alpha": "yes"}
    path = make_raster(np.concatenate([pixels[:1], alpha, pixels[1:]]), **profile)
    with open_raster(path) as raster:
        numbers = choose_numbers(raster, None)
        (strip,) = strips_of(raster, numbers, 50, 50, 1)
    assert numbers == [1, *range(3, bands + 2)]
    assert np.array_equal(strip.valid[:40], alpha[0] > 0)


def test_an_alpha_band_that_is_read_is_a_band_like_others(make_raster, noise):
    """GDAL calls the fourth of four bytes alpha, which may be near infrared."""
    pixels = noise(4, 40, 50)
    colours = [ColorInterp[c] for c in ("red", "green", "blue", "alpha")]
    with open_raster(make_raster(pixels, colorinterp=colours)) as raster:
        (strip,) = strips_of(raster, [1, 2, 3, 4], 50, 50, 1)
        assert strip.valid is None
        assert np.array_equal(strip.pixels[:40], pixels.transpose(1, 2, 0))
        (strip,) = strips_of(raster, [1, 2, 3], 50, 50, 1)
    assert np.array_equal(strip.valid[:40], pixels[3] > 0)


def test_guesses_of_a_damaged_jpeg_are_refused(orthophoto, make_raster, tmp_path):
    path = tmp_path / "damaged.jpg"
    with rasterio.open(orthophoto) as source:
        whole = make_raster(source.read())
    rasterio.shutil.copy(whole, str(path), driver="JPEG")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = b"\xff\xd0" * 20  # markers where none should be
    path.write_bytes(content)
    with open_raster(str(path)) as raster, pytest.raises(InputError, match="JPEG"):
        list(strips_of(raster, [1, 2, 3], 512, 512, -(-raster.height // 512)))
