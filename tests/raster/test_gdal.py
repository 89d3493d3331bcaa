"""GDAL's errors that it only mutters."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import rasterio
from rasterio.windows import Window

from fcntile.errors import InputError
from fcntile.raster.reader import read_window

ORTHOPHOTO = Path(__file__).parents[2] / "docs" / "demo" / "philippines_1.tif"  # JPEG inside


def test_guessed_pixels_are_an_error_in_the_thread_that_read_them_only(tmp_path):
    whole = bytearray(ORTHOPHOTO.read_bytes())
    whole[60_000:60_300] = bytes(300)
    damaged = tmp_path / "damaged.tif"
    damaged.write_bytes(whole)

    def is_refused(path):
        with rasterio.open(path) as raster:
            try:
                read_window(raster, [1, 2, 3], Window(0, 0, raster.width, raster.height))
            except InputError as error:
                assert "Corrupt JPEG data" in str(error)
                return True
            return False

    paths = [damaged, ORTHOPHOTO] * 12
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(is_refused, paths)) == [path == damaged for path in paths]


def test_a_block_that_cannot_be_decoded_is_refused():
    with (
        rasterio.open(Path(__file__).parents[1] / "data" / "corrupt.tif") as raster,
        pytest.raises(InputError, match="cannot read rows"),
    ):
        read_window(raster, [1], Window(0, 0, raster.width, raster.height))
