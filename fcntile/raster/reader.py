"""Read a raster from top to bottom, in strips as high as a tile, each pixel once.

Neighbouring strips share the overlap's rows: those are kept, only the new rows are read. Strips are
completed by reflection to whole tiles beyond the right and bottom rim. Their pixels lie band by
band within a pixel, which is the order that nets run fastest on (channels last).
"""

import logging
import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from fcntile.errors import InputError

# rasterio lets some of GDAL's errors through as they are, and has no public name for them
GDAL_ERRORS = (RasterioError, CPLE_BaseError, OSError)
COLOURS = {"pan", "coastal", "blue", "green", "red", "rededge", "nir", "swir"}  # GDAL's words
METRES_PER_DEGREE = 111_320  # of latitude, and of longitude at the equator


@dataclass(frozen=True)
class Strip:
    """A row of tiles with its pixels.

    Args:
        row: index of the tile row.
        pixels: (tile, padded width, bands) in the raster's dtype.
        valid: (tile, padded width) bool; None if every pixel is.
    """

    row: int
    pixels: NDArray[np.generic]
    valid: NDArray[np.bool_] | None


@contextmanager
def open_raster(path: str, *, threads: int = 1) -> Iterator[rasterio.DatasetReader]:
    """Open whatever rasterio opens: files, `/vsi...`, URLs, archives.

    GDAL's block cache is bounded by the raster's width while it is open. Settings that the user
    made in the environment are left alone.

    Args:
        path: what rasterio calls a dataset identifier.
        threads: for decompression.

    Raises:
        InputError: if it cannot be opened, with GDAL's reason.
    """
    with (
        _gdal(GDAL_NUM_THREADS=threads, GDAL_HTTP_MAX_RETRY=3, GDAL_HTTP_RETRY_DELAY=1),
        open_file(path) as raster,
        _gdal(GDAL_CACHEMAX=_cache_bytes(raster)),
    ):
        yield raster


def open_file(path: str) -> rasterio.DatasetReader:
    """Open a raster with GDAL's own settings.

    Raises:
        InputError: if it cannot be opened, with GDAL's reason.
    """
    try:
        raster = rasterio.open(path)
    except (*GDAL_ERRORS, ValueError) as error:
        raise InputError(f"cannot open {path}: {error}") from error
    if not raster.count:
        inside = " ".join(raster.subdatasets) or "none"
        raster.close()
        raise InputError(f"{path} has no bands itself; choose one of its datasets: {inside}")
    return raster


def _gdal(**settings: int) -> rasterio.Env:
    """Return an environment with these GDAL settings, but for those the user has made."""
    return rasterio.Env(**{key: value for key, value in settings.items() if key not in os.environ})


def _cache_bytes(raster: rasterio.DatasetReader) -> int:
    """Return room for the row of blocks that two strips share, as read and as the mask has it.

    GDAL's own default, 5 % of the machine's memory, would fill up with blocks that are never read
    again. (As an option, unlike as an environment variable, the number is in bytes.)
    """
    numpy_names = (name.replace("complex_int16", "complex64") for name in raster.dtypes)
    pixel = sum(np.dtype(name).itemsize for name in numpy_names) + 1
    block_rows = max(rows for rows, _ in raster.block_shapes)
    return int(max(64 << 20, max(2 * block_rows, 1024) * raster.width * pixel))


def choose_numbers(raster: rasterio.DatasetReader, bidx: Sequence[int] | None) -> list[int]:
    """Return band numbers from 1: those asked for, or every band but alpha.

    Raises:
        InputError: if there is no such band.
    """
    if missing := [i for i in bidx or () if not 1 <= i <= raster.count]:
        raise InputError(f"{raster.name} has bands 1 to {raster.count}, there is no {missing[0]}")
    meanings = zip(raster.indexes, raster.colorinterp, strict=True)
    return list(bidx or (i for i, meaning in meanings if meaning != ColorInterp.alpha))


def band_names(raster: rasterio.DatasetReader, bands: Sequence[int]) -> list[str]:
    """Return what bands are called: by their colour, else their description, else `band<n>`."""

    def name(i: int) -> str:
        colour: str = raster.colorinterp[i - 1].name
        return colour if colour in COLOURS else raster.descriptions[i - 1] or f"band{i}"

    return [name(i) for i in bands]


def resolution(raster: rasterio.DatasetReader) -> float | None:
    """Return the side of a pixel on the ground in metres; None without a CRS.

    Geographic coordinates are taken at the raster's middle latitude. A projection's own distortion
    is not corrected.
    """
    crs: CRS | None = raster.crs
    area = abs(raster.transform.determinant)
    if crs is None or not area:
        return None
    if crs.is_geographic:
        latitude = (raster.bounds.top + raster.bounds.bottom) / 2
        if abs(latitude) >= 90:
            return None
        return math.sqrt(area * math.cos(math.radians(latitude))) * METRES_PER_DEGREE
    if crs.is_projected:
        return math.sqrt(area) * float(crs.linear_units_factor[1])
    return None


def read_strips(
    raster: rasterio.DatasetReader,
    bands: Sequence[int],
    *,
    tile: int,
    stride: int,
    count: int,
    width: int,
) -> Iterator[Strip]:
    """Yield the raster as strips of `tile` rows, one every `stride` rows.

    Args:
        raster: open dataset; nobody else may read from it meanwhile.
        bands: band numbers from 1, in the order of the net's channels.
        tile: rows of a strip.
        stride: rows from one strip's start to the next.
        count: number of strips.
        width: columns of a strip, >= the raster's: the rest is reflected.

    Raises:
        InputError: if pixels cannot be read, naming the rows.
    """
    kept: Strip | None = None
    has_mask = _has_mask(raster, bands)
    for row in range(count):
        pixels = np.empty((tile, width, len(bands)), raster.dtypes[bands[0] - 1])
        valid = np.empty((tile, width), bool) if has_mask else None
        old = 0 if kept is None else tile - stride  # rows that the strip above has read
        if kept is not None:
            pixels[:old] = kept.pixels[stride:]
        if kept is not None and kept.valid is not None and valid is not None:
            valid[:old] = kept.valid[stride:]
        stop = min(tile, raster.height - row * stride)
        window = Window(0, row * stride + old, raster.width, stop - old)
        _read(raster, bands, window, pixels[old:stop], None if valid is None else valid[old:stop])
        _reflect(pixels, stop, raster.width)
        if valid is not None:
            _reflect(valid, stop, raster.width)
        kept = Strip(row, pixels, valid)
        yield kept


def read_window(
    raster: rasterio.DatasetReader, bands: Sequence[int], window: Window
) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
    """Return the pixels of a window, and which of them are valid.

    Args:
        raster: open dataset; nobody else may read from it meanwhile.
        bands: band numbers from 1, in the order of the net's channels.
        window: inside the raster.

    Returns:
        (height, width, bands) in the raster's dtype, and (height, width) bool or None if all are.

    Raises:
        InputError: if they cannot be read.
    """
    shape = int(window.height), int(window.width)
    pixels = np.empty((*shape, len(bands)), raster.dtypes[bands[0] - 1])
    valid = np.empty(shape, bool) if _has_mask(raster, bands) else None
    _read(raster, bands, window, pixels, valid)
    return pixels, valid


def _has_mask(raster: rasterio.DatasetReader, bands: Sequence[int]) -> bool:
    """Tell whether any pixel may be without data, by a mask or by being NaN."""
    is_float = np.dtype(raster.dtypes[bands[0] - 1]).kind == "f"
    flags = [raster.mask_flag_enums[i - 1] for i in bands]
    return is_float or any(flag != [MaskFlags.all_valid] for flag in flags)


def _masked_bands(raster: rasterio.DatasetReader, bands: Sequence[int]) -> list[int]:
    """Return the bands whose masks say where data is: one if they share it.

    By GDAL's rule a pixel has data unless every band (here: that the net reads) is nodata there.
    """
    shared = MaskFlags.per_dataset in raster.mask_flag_enums[bands[0] - 1]
    return list(bands[:1]) if shared else list(bands)


def _read(
    raster: rasterio.DatasetReader,
    bands: Sequence[int],
    window: Window,
    pixels: NDArray[np.generic],
    valid: NDArray[np.bool_] | None,
) -> None:
    """Fill the left of `pixels` (rows, >= width, bands) and `valid` (rows, >= width)."""
    width = int(window.width)
    view = pixels[:, :width]
    try:
        with _strict_gdal():
            raster.read(list(bands), window=window, out=view.transpose(2, 0, 1))
            if valid is None:
                return
            masks = raster.read_masks(_masked_bands(raster, bands), window=window)
            valid[:, :width] = masks.any(axis=0)
    except GDAL_ERRORS as error:
        last = window.row_off + window.height - 1
        raise InputError(
            f"cannot read rows {window.row_off} to {last} of {raster.name}: "
            f"{error.__cause__ or error}"
        ) from error
    if view.dtype.kind == "f":
        valid[:, :width] &= np.isfinite(view).all(axis=2)


class _Guesses(logging.Filter):
    """Takes libjpeg's words about damaged data out of the log: GDAL gives guessed pixels then."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self._logs = [logging.getLogger(name) for name in ("rasterio._env", "rasterio._err")]
        self._levels = [log.level for log in self._logs]
        self._readers = 0
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if "JPEGLib" in message:
            self.messages.append(message)
            return False
        return record.levelno >= logging.getLogger().level  # as without us

    def __enter__(self) -> None:
        """Listen, as long as any thread reads."""
        with self._lock:
            self._readers += 1
            if self._readers > 1:
                return
            self._levels = [log.level for log in self._logs]
            for log in self._logs:
                log.addFilter(self)
                log.setLevel(logging.WARNING)  # a quiet user must not get guesses either

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers:
                return
            for log, level in zip(self._logs, self._levels, strict=True):
                log.removeFilter(self)
                log.setLevel(level)


_guesses = _Guesses()


@contextmanager
def _strict_gdal() -> Iterator[None]:
    """Send this thread's GDAL messages to the log; raise OSError for pixels that are guesses."""
    with _guesses, rasterio.Env():
        yield
    if _guesses.messages:
        raise OSError(_guesses.messages.pop())


def _reflect(strip: NDArray[np.generic], rows: int, columns: int) -> None:
    """Fill a strip beyond its first `rows` and `columns` by mirroring them, in place."""
    for axis, size in enumerate((rows, columns)):
        beyond = np.arange(size, strip.shape[axis])
        period = max(1, 2 * (size - 1))
        source = (size - 1) - np.abs((size - 1) - beyond % period)
        if axis == 0:
            strip[size:] = strip[source]
        else:
            strip[:, size:] = strip[:, source]
