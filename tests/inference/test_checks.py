"""Which bands of a raster feed a model, and which rasters are refused."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from nets import card
from rasterio.enums import ColorInterp

from fcntile.errors import InputError, OptionError
from fcntile.inference.checks import choose_bands
from fcntile.models.card import Band
from fcntile.predict import predict


def described(make_raster, *names, dtype=np.uint8):
    path = make_raster(np.zeros((len(names), 8, 8), dtype))
    with rasterio.open(path, "r+") as raster:
        raster.descriptions = names
    return path


def of_bands(*names):
    return replace(card("pixel"), bands=tuple(Band(name, 0, 1) for name in names))


def test_descriptions_in_another_order_are_refused(make_raster):
    path = described(make_raster, "B5 nir", "B4 red")
    with rasterio.open(path) as raster:
        assert choose_bands(raster, of_bands("B5 nir", "B4 red")) == [1, 2]
        with pytest.raises(InputError, match="use -b 2 -b 1"):
            choose_bands(raster, of_bands("B4 red", "B5 nir"))
        assert choose_bands(raster, of_bands("B4 red", "B5 nir"), [2, 1]) == [2, 1]


def test_colours_are_told_however_they_are_written(make_raster):
    path = described(make_raster, "Blue", "GREEN", "red", dtype=np.uint16)
    with rasterio.open(path) as raster:
        for red in ("red", "Red"):  # as cards of older models may have it
            model = replace(of_bands(red, "green", "blue"), dtype="uint16")
            with pytest.raises(InputError, match="use -b 3 -b 2 -b 1"):
                choose_bands(raster, model)
        model = replace(of_bands("blue", "Green", "red"), dtype="uint16")
        assert choose_bands(raster, model) == [1, 2, 3]


def test_a_band_that_means_one_colour_and_is_described_as_another_is_refused(make_raster):
    """GDAL lets the first three bands of bytes mean red, green and blue."""
    path = described(make_raster, "blue", "green", "red")
    with rasterio.open(path) as raster:
        with pytest.raises(InputError, match=r"band 1 .* means red and is described as blue"):
            choose_bands(raster, of_bands("red", "green", "blue"))
        assert choose_bands(raster, of_bands("red", "green", "blue"), [3, 2, 1]) == [3, 2, 1]


@pytest.mark.parametrize("meaning", ["hue saturation lightness", "Y Cb Cr", "cyan magenta yellow"])
def test_bands_that_mean_something_else_are_refused(make_raster, meaning):
    path = make_raster(np.zeros((3, 8, 8), np.uint8))
    with rasterio.open(path, "r+") as raster:
        raster.colorinterp = [ColorInterp[name] for name in meaning.split()]
    with rasterio.open(path) as raster, pytest.raises(InputError, match="choose them with -b"):
        choose_bands(raster, of_bands("red", "green", "blue"))


def test_other_descriptions_prove_nothing(make_raster):
    path = described(make_raster, "first", "second")
    with rasterio.open(path) as raster:
        assert choose_bands(raster, of_bands("B4 red", "B5 nir")) == [1, 2]


@pytest.mark.parametrize(
    "option",
    [
        {"stitch": "linear"},
        {"dtype": "uint16"},
        {"driver": "PNG"},
        {"products": {"probs": "p.tif"}},
    ],
)
def test_misspelt_choices_are_refused_in_python_too(orthophoto, tmp_path, option):
    with pytest.raises(OptionError, match="is none of"):
        predict(orthophoto, tmp_path / "m.tif", **option)


def test_too_few_bands_leave_nothing_to_choose(make_raster, noise):
    path = make_raster(noise(1, 8, 8))
    with rasterio.open(path) as raster, pytest.raises(InputError) as refused:
        choose_bands(raster, of_bands("red", "green", "blue"))
    assert str(refused.value).endswith("use another raster or model")


def test_a_band_that_gdal_takes_for_alpha_can_be_chosen(make_raster, noise):
    path = make_raster(noise(4, 8, 8))
    with rasterio.open(path, "r+") as raster:
        raster.colorinterp = [ColorInterp[name] for name in ("red", "green", "blue", "alpha")]
    with rasterio.open(path) as raster:
        with pytest.raises(InputError, match=r"has 3 .* choose them with -b"):
            choose_bands(raster, of_bands("red", "green", "blue", "nir"))
        assert choose_bands(raster, of_bands("red", "green", "blue", "nir"), [1, 2, 3, 4])


def test_chosen_bands_of_other_colours_are_remarked_on(make_raster, noise, caplog):
    path = make_raster(noise(3, 8, 8), photometric="RGB")
    with rasterio.open(path) as raster:
        assert choose_bands(raster, of_bands("red", "green", "blue"), [1, 2, 3]) == [1, 2, 3]
        assert not caplog.text
        assert choose_bands(raster, of_bands("red", "green", "blue"), [3, 2, 1]) == [3, 2, 1]
    assert "-b chooses blue, green, red" in caplog.text


def test_a_name_for_another_format_is_remarked_on(orthophoto, tmp_path, caplog):
    predict(orthophoto, tmp_path / "mask.PNG", dry_run=True)
    assert "mask.PNG will be a GeoTIFF, whatever its name says" in caplog.text
