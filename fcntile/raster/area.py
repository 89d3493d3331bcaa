"""The ground of interest: polygons in any CRS, and bounds in the raster's own."""

import math
from collections.abc import Sequence

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from fcntile.errors import InputError, OptionError
from fcntile.raster.labels import VectorLabels
from fcntile.raster.vectors import read_features

INSIDE, OUTSIDE = 1, 0
ROUNDING = 1e-6  # px, by which the place of a centre in a CRS may be off


class Area:
    """Polygons on the grid of a raster; a pixel is inside if its centre is.

    Args:
        path: a vector file; anything OGR reads with pyogrio installed, else GeoJSON.
        like: the raster whose grid is wanted.

    Raises:
        InputError: if it cannot be read, or does not lie on the raster.
        OptionError: if pyogrio is needed and missing.
    """

    def __init__(self, path: str, like: rasterio.DatasetReader) -> None:
        features = read_features(path, what="polygons")
        if other := next((g["type"] for g in features.geometries if g["type"] != "Polygon"), None):
            raise InputError(f"{path} has a {other}: an area of interest takes polygons")
        self._polygons = VectorLabels(features, {}, OUTSIDE, like, least=0)
        if not self._polygons.count:
            raise InputError(f"no polygon of {path} lies on {like.name}")

    def read(self, window: Window) -> NDArray[np.bool_]:
        """Return (height, width) bool: which pixels are inside."""
        return np.asarray(self._polygons.read(window) == INSIDE)

    def touches(self, window: Window) -> bool:
        """Tell whether any pixel of a window is inside."""
        return bool(self.read(window).any())


def bounds_window(bounds: Sequence[float], raster: rasterio.DatasetReader) -> Window:
    """Return the window of the pixels whose centres lie within bounds, or on them.

    Args:
        bounds: left, bottom, right, top in the raster's CRS.
        raster: north-up or south-up.

    Raises:
        OptionError: if they are not in this order, or the raster has no rows along an axis.
        InputError: if they lie beside the raster.
    """
    left, bottom, right, top = bounds
    shown = " ".join(f"{v:.10g}" for v in bounds)
    transform = raster.transform
    if not (left < right and bottom < top and all(map(math.isfinite, bounds))):
        raise OptionError(f"bounds {shown} are not left, bottom, right, top")
    if transform.is_identity:
        raise OptionError(f"{raster.name} has no transform, so bounds have no place on it")
    if transform.b or transform.d:
        raise OptionError(f"{raster.name} is not north-up: use --aoi instead of --bounds")
    (c0, r0), (c1, r1) = (~transform * (left, top)), (~transform * (right, bottom))
    rows, columns = _centres(r0, r1, raster.height), _centres(c0, c1, raster.width)
    if rows[0] >= rows[1] or columns[0] >= columns[1]:
        extent = " ".join(f"{v:.10g}" for v in raster.bounds)
        raise InputError(
            f"bounds {shown} hold no pixel of {raster.name}, whose bounds are {extent}"
        )
    return Window.from_slices(rows, columns)


def _centres(first: float, last: float, size: int) -> tuple[int, int]:
    """Return the first pixel of an axis whose centre, i + 0.5, lies between, and one past the last.

    >>> _centres(0.5, 2.5, 9), _centres(2.6, 0.6, 9), _centres(-1e308, 1e308, 9)
    ((0, 3), (1, 3), (0, 9))
    """
    low, high = min(first, last) - 0.5 - ROUNDING, max(first, last) + 0.5 + ROUNDING
    return math.ceil(min(max(low, 0), size)), math.floor(min(max(high, 0), size))
