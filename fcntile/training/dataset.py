"""Rasters with their labels, read by windows from any number of threads."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.windows import Window

from fcntile.errors import InputError
from fcntile.models.card import DTYPES
from fcntile.raster.classes import UNLABELLED
from fcntile.raster.gdal import open_file
from fcntile.raster.labels import Labels, VectorLabels
from fcntile.raster.reader import band_names, choose_numbers, read_window, resolution
from fcntile.raster.sources import LabelSource, Pair

MAX_OPEN = 32  # pairs of files a thread keeps open


@dataclass(frozen=True)
class Bands:
    """What the bands of a raster are; the same for all rasters of a run.

    Args:
        names: in the order of the net's channels.
        dtype: of their values.
        scale: that the raster declares for its values.
        offset: likewise.
    """

    names: tuple[str, ...]
    dtype: str
    scale: float
    offset: float


@dataclass(frozen=True)
class Grid:
    """Where a raster's pixels are: height and width, CRS, transform, metres per pixel if known."""

    height: int
    width: int
    crs: CRS | None
    transform: rasterio.Affine
    resolution: float | None


class Dataset:
    """Pairs of raster and labels.

    Args:
        pairs: files, all rasters of the same bands.
        source: opens the labels.
        bidx: band numbers from 1; by default every band but alpha.

    Attributes:
        pairs: as given.
        grids: of each raster.
        bands: of all rasters.

    Raises:
        InputError: if a file cannot be opened, labels do not lie on their raster, or rasters differ
            in their bands.
    """

    def __init__(
        self, pairs: Sequence[Pair], source: LabelSource, bidx: Sequence[int] | None = None
    ) -> None:
        self.pairs = list(pairs)
        self.grids: list[Grid] = []
        self.bands: Bands
        self._source, self._bidx = source, bidx
        self._vectors: dict[int, VectorLabels] = {}  # hold no file, so threads share them
        self._local = threading.local()
        for i, pair in enumerate(pairs):
            with open_file(pair.image) as raster:
                bands = describe_bands(raster, choose_numbers(raster, bidx))
                if i and bidx:  # the user says that they are the same, whatever they are called
                    bands = replace(bands, names=self.bands.names)
                if i and bands != self.bands:
                    raise InputError(
                        f"{pair.image} has {_say(bands)}, but {self.pairs[0].image} has "
                        f"{_say(self.bands)}: rasters of one run need the same bands "
                        "(choose them with -b)"
                    )
                self.bands = bands
                grid = raster.height, raster.width, raster.crs, raster.transform
                self.grids.append(Grid(*grid, resolution(raster)))
                labels = source.open(pair.labels, raster)
                if isinstance(labels, VectorLabels):
                    self._vectors[i] = labels
                labels.close()

    def read(
        self, index: int, window: Window
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_], NDArray[np.uint16]]:
        """Return pixels, which of them are valid, and their label values.

        The window may reach beyond the raster; there is no data there. Where there is no data there
        is no label.

        Returns:
            (height, width, bands) in the raster's dtype, (height, width) bool, (height, width)

        Raises:
            InputError: if something cannot be read.
        """
        raster, labels = self._open(index)
        bands = choose_numbers(raster, self._bidx)
        shape = int(window.height), int(window.width)
        inside = window.intersection(Window(0, 0, raster.width, raster.height))
        pixels, valid = read_window(raster, bands, inside)
        values = labels.read(inside)
        if valid is not None:
            values[~valid] = UNLABELLED
        if pixels.shape[:2] == shape:
            return pixels, np.ones(shape, bool) if valid is None else valid, values
        top, left = int(inside.row_off - window.row_off), int(inside.col_off - window.col_off)
        place = np.s_[top : top + pixels.shape[0], left : left + pixels.shape[1]]
        whole = np.zeros((*shape, len(bands)), pixels.dtype)
        seen, ids = np.zeros(shape, bool), np.full(shape, UNLABELLED, np.uint16)
        whole[place], seen[place], ids[place] = pixels, True if valid is None else valid, values
        return whole, seen, ids

    def has_labels(self, index: int, window: Window) -> bool:
        """Tell whether anything is labelled in a window inside the raster, without its pixels."""
        _, labels = self._open(index)
        return bool((labels.read(window) != UNLABELLED).any())

    def _open(self, index: int) -> tuple[rasterio.DatasetReader, Labels]:
        """Return a pair's open files, of this thread: GDAL's handles are not to be shared."""
        opened = self._local.__dict__.setdefault("opened", OrderedDict())
        if index not in opened:
            raster = open_file(self.pairs[index].image)
            try:
                labels = self._vectors.get(index) or self._source.open(
                    self.pairs[index].labels, raster
                )
            except BaseException:
                raster.close()
                raise
            opened[index] = raster, labels
        opened.move_to_end(index)
        if len(opened) > MAX_OPEN:
            _, (raster, labels) = opened.popitem(last=False)
            labels.close()
            raster.close()
        return opened[index]  # type: ignore[no-any-return]


def describe_bands(raster: rasterio.DatasetReader, numbers: Sequence[int]) -> Bands:
    """Return what these bands of a raster are.

    Raises:
        InputError: if they differ in dtype, scale or offset, or no model knows their dtype.
    """

    def only(what: str, values: Sequence[object]) -> object:
        found = {values[i - 1] for i in numbers}
        if len(found) > 1:
            several = " and ".join(sorted(str(v) for v in found))
            raise InputError(f"the bands of {raster.name} differ in {what}: {several}")
        return found.pop()

    dtype = str(only("dtype", raster.dtypes))
    if dtype not in DTYPES:
        raise InputError(
            f"{raster.name} has {dtype} values, a model wants {', '.join(DTYPES)}: convert it with "
            "gdal_translate -ot"
        )
    scale, offset = only("scale", raster.scales), only("offset", raster.offsets)
    return Bands(tuple(band_names(raster, numbers)), dtype, float(scale), float(offset))  # type: ignore[arg-type]


def _say(bands: Bands) -> str:
    said = f"{len(bands.names)} {bands.dtype} band(s) ({', '.join(bands.names)})"
    plain = (bands.scale, bands.offset) == (1, 0)
    return said if plain else f"{said} of scale {bands.scale:g} and offset {bands.offset:g}"
