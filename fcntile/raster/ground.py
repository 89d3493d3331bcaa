"""The ground of a raster in another CRS, and how to get there."""

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import TransformError
from rasterio.warp import transform

from fcntile.raster.gdal import GDAL_ERRORS

Bounds = tuple[float, float, float, float]  # left, bottom, right, top
Points = NDArray[np.float64]  # (n, 2) x and y

TURNS = (0, -360, 360)  # degrees: the same place
SAMPLES = 21  # of a raster's ground, along each axis
NEAR_POLE = 90 - 1e-6  # degrees: the pole itself is nowhere in many projections
ZOOMS = 8  # towards a cut, each to one step of SAMPLES: 360 degrees become less than 1e-7
COMPLAINTS = 20  # of GDAL, about places that a projection does not know; more it keeps to itself


def ground(like: rasterio.DatasetReader, crs: CRS, margin: float = 0) -> Bounds:
    """Return a box in another CRS that a raster lies in.

    Longitudes go on beyond 180 degrees where the raster does.

    Args:
        like: the raster.
        crs: of the box.
        margin: around the raster, share of the box. The box then holds all of the raster that the
            CRS knows, and ends where the raster's projection is cut.

    Returns:
        Left, bottom, right and top.

    Raises:
        rasterio.errors.RasterioError, CPLE_BaseError: if the CRS knows no place of the raster.
    """
    points, knows_all = _samples(like, crs)
    low, high = points.min(0), points.max(0)
    low, high = low - margin * (high - low), high + margin * (high - low)
    if margin and not knows_all:  # what it knows may go on nearly up to the next sample
        low[:], high[:] = -np.inf, np.inf
    left, bottom, right, top = map(float, (*low, *high))
    if not crs.is_geographic or like.crs.is_geographic:
        return left, bottom, right, top
    bottom, top = max(bottom, -NEAR_POLE), min(top, NEAR_POLE)
    poles = [pole for pole in (-90, 90) if _holds(like, crs, pole)]
    bottom, top = min([bottom, *poles]), max([top, *poles])
    middle = float(points[len(points) // 2, 0])
    # nearly once around is all around: samples at the rims may lie on either side of the cut
    is_whole = bool(poles) or right - left >= 360 * (1 - 1 / (SAMPLES - 1))
    if is_whole:
        left, right = middle - 180, middle + 180
    cut = _cut((left, bottom, right, top), crs, like) if margin else None
    if cut and cut[0] > middle:  # the box is what is on the middle's side of it
        left, right = cut[1] - 360 if is_whole else left, cut[0]
    elif cut:
        left, right = cut[1], cut[0] + 360 if is_whole else right
    return left, bottom, right, top


def _samples(like: rasterio.DatasetReader, crs: CRS) -> tuple[Points, bool]:
    """Return places all over a raster that another CRS knows, and whether it knows all.

    The one in the middle of the list is near the middle of the raster. Longitudes do not jump.
    """
    steps = np.linspace(0, 1, SAMPLES)
    columns, rows = (a.ravel() for a in np.meshgrid(steps * like.width, steps * like.height))
    places = np.stack(like.transform * (columns, rows), 1)
    if like.crs.is_geographic:  # a grid of points has pixels that stretch beyond the poles
        places[:, 1] = places[:, 1].clip(-90, 90)
    points = change_crs(places, like.crs, crs)
    points = points[np.isfinite(points).all(1)]
    if not len(points):
        raise TransformError(f"no place of {like.name} is known there")
    knows_all = len(points) == len(places)
    if crs.is_geographic and not like.crs.is_geographic:
        middle = points[len(points) // 2, 0]
        if knows_all:
            grid = points[:, 0].reshape(SAMPLES, SAMPLES)
            grid = np.unwrap(np.unwrap(grid, axis=0, period=360), axis=1, period=360)
            points[:, 0] = grid.ravel() + middle - grid[SAMPLES // 2, SAMPLES // 2]
        else:
            points[:, 0] = near(points[:, 0], middle)
    return points, knows_all


def _holds(like: rasterio.DatasetReader, crs: CRS, pole: int) -> bool:
    """Tell whether a pole is in a raster."""
    ((x, y),) = change_crs(np.array([[0.0, pole]]), crs, like.crs)
    column, row = ~like.transform * (x, y)
    return bool(0 <= column <= like.width and 0 <= row <= like.height)


def _cut(box: Bounds, crs: CRS, like: rasterio.DatasetReader) -> tuple[float, float] | None:
    """Return the longitudes on both sides of the meridian that a raster's projection is cut at.

    That is where the way between two neighbours does not get shorter when they come nearer.

    Args:
        box: with longitudes and latitudes, to look in.
        crs: of the box.
        like: the raster.

    Returns:
        Two longitudes that are the same to 1e-7 degrees; None if there is no cut in the box.
    """
    longitudes = np.linspace(box[0], box[2], SAMPLES)
    latitudes = np.full(SAMPLES, (box[1] + box[3]) / 2)
    for _ in range(ZOOMS):
        there = change_crs(np.stack([longitudes, latitudes], 1), crs, like.crs)
        ways = np.nan_to_num(np.hypot(*np.diff(there, axis=0).T))
        before = int(ways.argmax())
        found = float(longitudes[before]), float(longitudes[before + 1])
        longitudes = np.linspace(*found, SAMPLES)
    return found if ways.max() > pixel_side(like) else None


def pixel_side(like: rasterio.DatasetReader) -> float:
    """Return the side of a square pixel of the same area, in units of the raster's CRS."""
    return float(abs(like.transform.determinant) ** 0.5)


def near(
    longitudes: NDArray[np.float64], middle: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    """Return longitudes by so many turns that they are at most half a turn from a middle."""
    return np.asarray(longitudes + 360 * np.round((middle - longitudes) / 360), np.float64)


def change_crs(points: Points, crs: CRS, to: CRS) -> Points:
    """Return points in another CRS, NaN where it does not know them.

    Longitudes stay where they are: 190 degrees do not become -170.

    Raises:
        rasterio.errors.RasterioError, CPLE_BaseError: if there is no way from one to the other.
    """
    if crs == to:
        return points
    x, y = points.T.tolist()
    for complaint in range(COMPLAINTS + 1):
        try:
            there: Points = np.array(transform(crs, to, x, y), np.float64).T
            break
        except GDAL_ERRORS:
            if complaint == COMPLAINTS:
                raise
    there[~np.isfinite(there).all(1)] = np.nan
    if crs.is_geographic and to.is_geographic:
        there[:, 0] = near(there[:, 0], points[:, 0])
    return there
