"""Read a raster from top to bottom, in strips as high as a tile, each pixel once.

Neighbouring strips share the overlap's rows: those are kept, only the new rows are read. Tiles that
go on beyond the right and bottom rim are completed by reflection of what they have of the raster.
Pixels lie band by band within a pixel, which is the order that nets run fastest on (channels last).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from fcntile.errors import InputError, reason
from fcntile.raster.area import Area
from fcntile.raster.gdal import GDAL_ERRORS
from fcntile.raster.gdal_messages import strict_gdal

# GDAL's words for what a band may mean
COLOURS = {"pan", "coastal", "blue", "green", "red", "rededge", "nir", "swir"}
COLOURS |= {"hue", "saturation", "lightness", "cyan", "magenta", "yellow", "black", "y", "cb", "cr"}
METRES_PER_DEGREE = 111_320  # of latitude, and of longitude at the equator


@dataclass(frozen=True)
class Strip:
    """A row of tiles with its pixels.

    Args:
        pixels: (rows, width, bands) in the raster's dtype.
        valid: (rows, width) bool, which have data; None if every pixel has.
        wanted: (rows, width) bool, which the mask is to have; None if every pixel.
    """

    pixels: NDArray[np.generic]
    valid: NDArray[np.bool_] | None
    wanted: NDArray[np.bool_] | None = None


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
        colour = plain(raster.colorinterp[i - 1].name)
        return colour if colour in COLOURS else plain(raster.descriptions[i - 1] or f"band{i}")

    return [name(i) for i in bands]


def plain(name: str) -> str:
    """Return a band's name, that of a colour in lower case: `Red` is `red`."""
    return name.lower() if name.lower() in COLOURS else name


def resolution(raster: rasterio.DatasetReader) -> float | None:
    """Return the side of a pixel on the ground in metres; None without a CRS or transform.

    Geographic coordinates are taken at the raster's middle latitude. A projection's own distortion
    is not corrected.
    """
    crs: CRS | None = raster.crs
    area = abs(raster.transform.determinant)
    if crs is None or not area or raster.transform.is_identity:
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
    rows: Iterable[tuple[int, int]],
    columns: tuple[int, int],
    *,
    last: int,
    area: Area | None = None,
) -> Iterator[Strip]:
    """Yield strips of a raster.

    Args:
        raster: open dataset; nobody else may read from it meanwhile.
        bands: band numbers from 1, in the order of the net's channels.
        rows: first and one past the last of each strip, from top to bottom; they share rows or
            touch. Only the last strip, and the last tile of each, may go on beyond the rim.
        columns: first and one past the last column, those of a row of tiles.
        last: first column of the last tile.
        area: where the mask is wanted; by default everywhere.

    Raises:
        InputError: if pixels cannot be read, naming the rows.
    """
    left, right = columns
    width, inside = right - left, min(right, raster.width) - left
    last_tile = last - left
    kept: Strip | None = None
    kept_top = 0
    has_mask = _has_mask(raster, bands)
    for top, bottom in rows:
        pixels = np.empty((bottom - top, width, len(bands)), raster.dtypes[bands[0] - 1])
        valid = np.empty((bottom - top, width), bool) if has_mask else None
        old = 0  # rows that the strip above has read
        if kept is not None:
            shared = kept.pixels[top - kept_top :]
            old = len(shared)
            pixels[:old] = shared
            if kept.valid is not None and valid is not None:
                valid[:old] = kept.valid[top - kept_top :]
        stop = min(bottom, raster.height) - top
        window = Window(left, top + old, inside, stop - old)
        _read(raster, bands, window, pixels[old:stop], None if valid is None else valid[old:stop])
        _reflect(pixels, stop, inside, last_tile)
        if valid is not None:
            _reflect(valid, stop, inside, last_tile)
        wanted = None
        if area is not None:
            wanted = np.zeros((bottom - top, width), bool)
            wanted[:stop, :inside] = area.read(Window(left, top, inside, stop))
        kept, kept_top = Strip(pixels, valid, wanted), top
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


def has_data(raster: rasterio.DatasetReader, bands: Sequence[int], window: Window) -> bool:
    """Tell whether any pixel of a window has data.

    Raises:
        InputError: if it cannot be read.
    """
    if not _has_mask(raster, bands):
        return True
    valid = read_window(raster, bands, window)[1]
    return valid is None or bool(valid.any())


def read_completed(
    raster: rasterio.DatasetReader, bands: Sequence[int], window: Window
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Return the pixels of a window that may go on beyond the rim, by reflection.

    Args:
        raster: open dataset; nobody else may read from it meanwhile.
        bands: band numbers from 1, in the order of the net's channels.
        window: partly inside the raster at least.

    Returns:
        (height, width, bands) in the raster's dtype, and (height, width) bool: which are valid.

    Raises:
        InputError: if they cannot be read.
    """
    rows = _mirrored(int(window.row_off), int(window.height), raster.height)
    columns = _mirrored(int(window.col_off), int(window.width), raster.width)
    inside = Window.from_slices((rows.min(), rows.max() + 1), (columns.min(), columns.max() + 1))
    pixels, valid = read_window(raster, bands, inside)
    here = np.ix_(rows - rows.min(), columns - columns.min())
    return pixels[here], np.ones(pixels.shape[:2], bool)[here] if valid is None else valid[here]


def _mirrored(start: int, count: int, size: int) -> NDArray[np.int64]:
    """Return which of `size` pixels stand at `count` places from `start` on, by reflection."""
    period = max(1, 2 * (size - 1))
    return (size - 1) - np.abs((size - 1) - np.arange(start, start + count) % period)


def _has_mask(raster: rasterio.DatasetReader, bands: Sequence[int]) -> bool:
    """Tell whether any pixel may be without data, by a mask or by being NaN."""
    is_float = np.dtype(raster.dtypes[bands[0] - 1]).kind == "f"
    has_alpha = _other_alpha(raster, bands) is not None
    return is_float or has_alpha or bool(_masked_bands(raster, bands))


def _other_alpha(raster: rasterio.DatasetReader, bands: Sequence[int]) -> int | None:
    """Return the alpha band that GDAL makes no mask of, if there is one.

    It does of uint8 and uint16 in two or four bands, unless there is a nodata value or a mask.
    """
    if MaskFlags.alpha in raster.mask_flag_enums[bands[0] - 1]:
        return None
    meanings = zip(raster.indexes, raster.colorinterp, strict=True)
    alphas = (i for i, meaning in meanings if meaning == ColorInterp.alpha)
    return next((i for i in alphas if i not in bands), None)


def _masked_bands(raster: rasterio.DatasetReader, bands: Sequence[int]) -> list[int]:
    """Return the bands whose masks say where data is: one if they share it, none if all is.

    By GDAL's rule a pixel has data unless every band (here: that the net reads) is nodata there.
    An alpha band that the net reads is a band like others.
    """
    flags = [raster.mask_flag_enums[i - 1] for i in bands]
    is_read = any(raster.colorinterp[i - 1] == ColorInterp.alpha for i in bands)
    if all(f == [MaskFlags.all_valid] or (is_read and MaskFlags.alpha in f) for f in flags):
        return []
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
        with strict_gdal():
            raster.read(list(bands), window=window, out=view.transpose(2, 0, 1))
            if valid is None:
                return
            valid[:, :width] = True
            if masked := _masked_bands(raster, bands):
                valid[:, :width] = raster.read_masks(masked, window=window).any(axis=0)
            if (alpha := _other_alpha(raster, bands)) is not None:
                valid[:, :width] &= raster.read(alpha, window=window) > 0
    except GDAL_ERRORS as error:
        last = window.row_off + window.height - 1
        raise InputError(
            f"cannot read rows {window.row_off} to {last} of {raster.name}: {reason(error)}"
        ) from error
    if view.dtype.kind == "f":
        valid[:, :width] &= np.isfinite(view).all(axis=2)


def _reflect(strip: NDArray[np.generic], rows: int, columns: int, last_tile: int) -> None:
    """Fill a strip beyond its first `rows` and `columns` by mirroring them, in place.

    Columns are mirrored within the last tile, as rows are within the strip: so a tile does not
    depend on how many others are read with it.
    """
    height, width = strip.shape[:2]
    strip[rows:] = strip[_mirrored(rows, height - rows, rows)]
    beyond = _mirrored(columns - last_tile, width - columns, columns - last_tile)
    strip[:, columns:] = strip[:, last_tile + beyond]
