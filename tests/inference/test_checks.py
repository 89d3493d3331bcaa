"""Which bands of a raster feed a model, and which rasters are refused."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from nets import card

from fcntile.errors import InputError, OptionError
from fcntile.inference.checks import choose_bands
from fcntile.models.card import Band
from fcntile.predict import predict


def described(make_raster, *names):
    path = make_raster(np.zeros((len(names), 8, 8), np.uint8))
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
