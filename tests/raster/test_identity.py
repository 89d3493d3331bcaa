"""What tells a raster from another, and from itself after a change."""

import zipfile
from pathlib import Path

import pytest
import rasterio
import rasterio.shutil

from fcntile.errors import InputError
from fcntile.raster.gdal import open_raster
from fcntile.raster.identity import check_unchanged, identify


def zipped(path):
    """Put a file into an archive beside it, as it is, and return what rasterio calls it there."""
    archive = Path(path).with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as made:
        made.write(path, "image.tif")
    return f"zip://{archive}!image.tif"


def test_an_archive_that_was_written_anew_is_another_raster(make_raster, noise):
    pixels = noise(1, 1000, 1000)
    with open_raster(zipped(make_raster(pixels))) as raster:
        before = identify(raster)
    pixels[0, 100:160, 100:160] = 0  # between the windows that are looked at behind a network
    with open_raster(zipped(make_raster(pixels))) as raster:
        assert identify(raster) != before


@pytest.mark.parametrize("inner", ["inner.vrt", "inner.VRT", "inner.xml"])
def test_a_change_below_a_mosaic_of_mosaics_is_seen(make_raster, noise, tmp_path, inner):
    path = make_raster(noise(1, 600, 600))
    rasterio.shutil.copy(path, tmp_path / inner, driver="VRT")
    outer = tmp_path / "outer.vrt"
    outer.write_text((tmp_path / inner).read_text().replace(">image.tif<", f">{inner}<"))
    with open_raster(str(outer)) as raster:
        before = identify(raster)
    with rasterio.open(path, "r+") as raster:
        raster.write(255 - raster.read())
    with open_raster(str(outer)) as raster:
        assert identify(raster) != before


def test_what_cannot_be_read_is_said(make_raster, noise, tmp_path):
    image, inner, outer = make_raster(noise(1, 100, 100)), tmp_path / "a.vrt", tmp_path / "b.vrt"
    rasterio.shutil.copy(image, inner, driver="VRT")
    rasterio.shutil.copy(inner, outer, driver="VRT")
    Path(image).unlink()
    with open_raster(str(outer)) as raster, pytest.raises(InputError, match="cannot read"):
        identify(raster)


def test_a_raster_that_changes_during_a_run_is_noticed(make_raster, noise):
    path = make_raster(noise(1, 100, 100))
    with open_raster(path) as raster:
        before = identify(raster)
        check_unchanged(raster, before)
        make_raster(noise(1, 100, 100) // 2)
        with pytest.raises(InputError, match="has changed since the run began"):
            check_unchanged(raster, before)
