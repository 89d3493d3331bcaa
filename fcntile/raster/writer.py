"""Write a mask from top to bottom into a GeoTIFF that appears only when it is whole.

Rows go into a quickly compressed GeoTIFF in a hidden folder beside the output, each block written
once; from that GDAL makes the file asked for (a Cloud-Optimized GeoTIFF needs its overviews before
its pixels), which is then renamed. Whatever fails on the way, the folder goes.
"""

import os
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window

from fcntile.errors import OptionError, OutputError
from fcntile.raster.classes import NO_LABEL, UNLABELLED
from fcntile.raster.gdal import GDAL_ERRORS

Classes = Sequence[tuple[int, str, tuple[int, int, int]]]  # value, name, (red, green, blue)

NODATA = {"uint8": NO_LABEL, "uint16": UNLABELLED}  # of masks, by their dtype
BLOCK = 512
SIDECARS = (".aux.xml", ".ovr", ".msk")
DEFAULTS: dict[str, dict[str, Any]] = {
    "COG": {"compress": "deflate", "blocksize": BLOCK, "overview_resampling": "mode"},
    "GTiff": {"compress": "deflate", "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK},
}


def mask_dtype(values: Iterable[int]) -> str:
    """Return the dtype of a mask with these class values.

    >>> mask_dtype([0, 254]), mask_dtype([0, 255])
    ('uint8', 'uint16')
    """
    return "uint8" if max(values) < NODATA["uint8"] else "uint16"


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError unless a file can be written at `path`."""
    if path.is_dir():
        raise OutputError(f"the output {path} is a directory: give a file name")
    if not path.parent.is_dir():
        raise OutputError(f"the output directory {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"the output directory {path.parent} is not writable")
    if path.exists() and not overwrite:
        raise OutputError(f"the output {path} exists: use --overwrite to replace it")


@contextmanager
def open_mask(
    path: Path,
    like: rasterio.DatasetReader,
    *,
    classes: Classes,
    tags: Mapping[str, str],
    driver: str = "COG",
    creation_options: Mapping[str, str] | None = None,
    threads: int = 1,
) -> Iterator["MaskWriter"]:
    """Open a mask for writing; what is not finished when it closes, was never there.

    It is uint8 with nodata 255 if every class value is below that, else uint16 with 65535.

    Args:
        path: the output.
        like: raster whose grid and georeference the mask shares.
        classes: value, name and (red, green, blue) of each class.
        tags: what to record in the file about its making.
        driver: "COG" or "GTiff".
        creation_options: GDAL creation options, over compress=deflate and 512 px blocks.
        threads: for compression.

    Raises:
        OptionError: if GDAL cannot make a mask with the creation options.
        OutputError: if nothing can be written beside the output, or it is the input.
    """
    if path.resolve() in {Path(name).resolve() for name in like.files}:
        raise OutputError(f"the output {path} is the input, or a part of it")
    dtype = mask_dtype(value for value, _, _ in classes)
    options = DEFAULTS[driver] | {"bigtiff": "IF_SAFER", "num_threads": threads}
    options |= {key.lower(): value for key, value in (creation_options or {}).items()}
    try:
        folder = TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise OutputError(f"cannot write beside {path}: {error}") from error
    with folder:
        try:
            if creation_options:
                _try_options(Path(folder.name), driver, options, dtype)
            rows = _create(Path(folder.name) / "rows.tif", like, classes, tags, dtype)
        except GDAL_ERRORS as error:
            raise OutputError(f"cannot write beside {path}: {error}") from error
        with rows:
            yield MaskWriter(path, rows, driver, options)


class MaskWriter:
    """A mask in the making: `write` rows from the top, then `finish`.

    Args:
        path: the output.
        rows: the open file of rows.
        driver: of the output.
        options: creation options of the output.
    """

    def __init__(
        self, path: Path, rows: rasterio.io.DatasetWriter, driver: str, options: Mapping[str, Any]
    ) -> None:
        self.path = path
        self._rows, self._driver, self._options = rows, driver, options
        self._row = 0  # rows received so far
        self._crc = 0  # of their bytes
        self._blocks = np.empty((BLOCK, rows.width), rows.dtypes[0])  # the row being filled

    def write(self, rows: NDArray[np.unsignedinteger]) -> None:
        """Append rows.

        Args:
            rows: (any number, width) class values and nodata, in the mask's dtype.

        Raises:
            OutputError: if they cannot be written, with GDAL's reason.
        """
        assert rows.dtype == self._blocks.dtype, "numpy would wrap values without a word"
        self._crc = zlib.crc32(rows.tobytes(), self._crc)
        while len(rows):
            used = self._row % BLOCK
            taken = min(len(rows), BLOCK - used)
            self._blocks[used : used + taken] = rows[:taken]
            self._row += taken
            rows = rows[taken:]
            if self._row % BLOCK == 0 or self._row == self._rows.height:
                self._write_blocks(used + taken)

    def finish(self) -> None:
        """Make the output of the rows, read it back, and give it its name.

        GDAL keeps silent about some writes that fail late, on a full disk for one; so only what
        reads back as it was given counts as written.

        Raises:
            OutputError: if it cannot be written, or rows are missing.
        """
        if self._row != self._rows.height:
            raise OutputError(f"only {self._row} of {self._rows.height} rows were written")
        made = Path(self._rows.name).parent / "whole" / self.path.name
        try:
            made.parent.mkdir()
            self._rows.close()
            rasterio.shutil.copy(self._rows.name, made, driver=self._driver, **self._options)
            if _crc(made) != self._crc:
                raise OSError("it does not read back as it was written")
            with made.open("rb") as file:
                os.fsync(file.fileno())
            for suffix in SIDECARS:
                old, new = Path(f"{self.path}{suffix}"), Path(f"{made}{suffix}")
                old.unlink(missing_ok=True)  # of a mask that is being replaced
                if new.exists():
                    new.replace(old)
            made.replace(self.path)
        except GDAL_ERRORS as error:
            raise self._failure(error) from error

    def _write_blocks(self, height: int) -> None:
        window = Window(0, self._row - height, self._rows.width, height)
        try:
            self._rows.write(self._blocks[:height], 1, window=window)
        except GDAL_ERRORS as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> OutputError:
        reason = error.__cause__ or error
        return OutputError(f"cannot write {self.path} (is the disk full?): {reason}")


def _crc(path: Path) -> int:
    """Return the CRC-32 of a mask's pixels, from top to bottom."""
    crc = 0
    with rasterio.open(path) as mask:
        for row in range(0, mask.height, BLOCK):
            window = Window(0, row, mask.width, min(BLOCK, mask.height - row))
            crc = zlib.crc32(mask.read(1, window=window), crc)
    return crc


def _try_options(folder: Path, driver: str, options: Mapping[str, Any], dtype: str) -> None:
    """Raise OptionError if GDAL cannot make a small mask with these creation options."""
    trial, made = folder / "trial.tif", folder / "tried.tif"
    profile = {"driver": "GTiff", "width": BLOCK, "height": BLOCK, "count": 1, "dtype": dtype}
    where = {"crs": "EPSG:3857", "transform": Affine(1, 0, 9, 0, -1, 9)}
    with rasterio.open(trial, "w", nodata=NODATA[dtype], **profile, **where) as mask:
        mask.write_colormap(1, {0: (0, 0, 0, 255)})
    try:
        rasterio.shutil.copy(trial, made, driver=driver, **options)
        is_same = _crc(made) == _crc(trial)
    except (*GDAL_ERRORS, TypeError, ValueError) as error:
        raise OptionError(f"{driver} cannot be written with {dict(options)}: {error}") from error
    if not is_same:
        raise OptionError(f"{driver} with {dict(options)} would change the mask's pixels")


def _create(
    path: Path, like: rasterio.DatasetReader, classes: Classes, tags: Mapping[str, str], dtype: str
) -> rasterio.io.DatasetWriter:
    """Return the file of rows, with all that the mask says beside its pixels."""
    path.with_name(f"{path.name}.aux.xml").write_text(_category_names(classes))
    gcps, gcps_crs = like.gcps
    rows = rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=like.width,
        height=like.height,
        count=1,
        dtype=dtype,
        nodata=NODATA[dtype],
        crs=gcps_crs if gcps else like.crs,
        transform=None if gcps else like.transform,
        gcps=gcps or None,
        rpcs=like.rpcs,
        tiled=True,
        blockxsize=BLOCK,
        blockysize=BLOCK,
        compress="zstd",
        zstd_level=1,
        bigtiff="IF_SAFER",
    )
    colors = {value: (*rgb, 255) for value, _, rgb in classes}
    rows.write_colormap(1, {**colors, NODATA[dtype]: (0, 0, 0, 0)})
    rows.set_band_description(1, "class")
    rows.update_tags(**tags)
    rows.update_tags(1, **{f"CLASS_{value}": name for value, name, _ in classes})
    return rows


def _category_names(classes: Classes) -> str:
    """Return GDAL's sidecar (PAM) with the class names; rasterio has no call for them.

    GDAL finds a name by counting: values without a class have an empty one.
    """
    by_value = {value: name for value, name, _ in classes}
    root = ET.Element("PAMDataset")
    names = ET.SubElement(ET.SubElement(root, "PAMRasterBand", band="1"), "CategoryNames")
    for value in range(max(by_value) + 1):
        ET.SubElement(names, "Category").text = by_value.get(value, "")
    return ET.tostring(root, encoding="unicode")
