"""The files of one part: small GeoTIFFs, each named by the CRC-32 of its pixels."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window

from fcntile.files import cannot_write
from fcntile.raster.gdal import GDAL_ERRORS
from fcntile.raster.outputs import Output

BLOCK = 256  # px; blocks of a file, and rows that are written and checked at a time


class PartWriter:
    """The files of one part in the making: `write` rows from the top, then `finish`.

    Args:
        folder: where to make them.
        outputs: what to make.
        window: of the part.
    """

    def __init__(self, folder: Path, outputs: Sequence[Output], window: Window) -> None:
        self._folder, self._window = folder, window
        self._files = [_PartFile(folder, output, window) for output in outputs]
        self.rows = 0  # received so far

    def write(self, rows: Sequence[NDArray[np.generic]]) -> None:
        """Append rows.

        Args:
            rows: (bands, any number, width) of each output, in its dtype.

        Raises:
            OutputError: if they cannot be written, with GDAL's reason.
        """
        try:
            for file, array in zip(self._files, rows, strict=True):
                file.write(array)
        except GDAL_ERRORS as error:
            raise cannot_write(self._folder, error) from error
        self.rows += rows[0].shape[1]

    def finish(self) -> list[Path]:
        """Close the files and return them, named by what they hold.

        Raises:
            OutputError: if they cannot be written, or rows are missing.
        """
        assert self.rows == self._window.height, "rows are missing"
        try:
            return [file.finish() for file in self._files]
        except GDAL_ERRORS as error:
            raise cannot_write(self._folder, error) from error


class _PartFile:
    """One GeoTIFF of a part, each block of which is written once."""

    def __init__(self, folder: Path, output: Output, window: Window) -> None:
        self._name = f"{output.name}-{window.row_off}-{window.col_off}"
        self._height, self._width = int(window.height), int(window.width)
        self._path = folder / f"{self._name}.unfinished"
        options = {"nbits": 16} if output.is_half else {}
        try:
            self._file = rasterio.open(
                self._path,
                "w",
                driver="GTiff",
                width=self._width,
                height=self._height,
                count=len(output.bands),
                dtype=output.dtype,
                tiled=True,
                blockxsize=BLOCK,
                blockysize=BLOCK,
                interleave="band",
                compress="zstd",
                zstd_level=1,
                bigtiff="IF_SAFER",
                # where it lies, in px; one more, as rasterio remarks on the identity
                transform=Affine(1, 0, window.col_off + 1, 0, -1, -window.row_off),
                **options,
            )
        except GDAL_ERRORS as error:
            raise cannot_write(folder, error) from error
        self._filled = np.empty((len(output.bands), BLOCK, self._width), output.dtype)
        self._row = self._crc = 0

    def write(self, rows: NDArray[np.generic]) -> None:
        assert rows.dtype == self._filled.dtype, "numpy would wrap values without a word"
        while rows.shape[1]:
            used = self._row % BLOCK
            taken = min(rows.shape[1], BLOCK - used)
            self._filled[:, used : used + taken] = rows[:, :taken]
            self._row += taken
            rows = rows[:, taken:]
            if self._row % BLOCK == 0 or self._row == self._height:
                self._flush(used + taken)

    def _flush(self, height: int) -> None:
        block = np.ascontiguousarray(self._filled[:, :height])
        self._crc = zlib.crc32(block.data, self._crc)
        self._file.write(block, window=Window(0, self._row - height, self._width, height))

    def finish(self) -> Path:
        self._file.close()
        return self._path.replace(self._path.with_name(f"{self._name}-{self._crc:08x}.tif"))


def pixel_crc(raster: rasterio.DatasetReader, window: Window) -> int:
    """Return the CRC-32 of the pixels in a window, as the names of part files have it."""
    crc = 0
    for row in range(0, int(window.height), BLOCK):
        height = min(BLOCK, int(window.height) - row)
        here = Window(window.col_off, window.row_off + row, window.width, height)
        crc = zlib.crc32(raster.read(window=here), crc)
    return crc


def named_crc(path: Path) -> int:
    """Return the CRC-32 of its pixels that the name of a part's file says."""
    return int(path.stem.rsplit("-", 1)[1], 16)


def reads_back(path: Path) -> bool:
    """Tell whether a part's file has the pixels that were put there."""
    try:
        with rasterio.open(path) as part:
            return pixel_crc(part, Window(0, 0, part.width, part.height)) == named_crc(path)
    except GDAL_ERRORS:
        return False
