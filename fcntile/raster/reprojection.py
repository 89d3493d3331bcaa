"""Bring geometries to a raster's CRS, so that edges stay where they are on the ground."""

from collections.abc import Sequence

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform

from fcntile.raster.gdal import GDAL_ERRORS
from fcntile.raster.vectors import Geometry

Bounds = tuple[float, float, float, float]  # left, bottom, right, top
Points = NDArray[np.float64]  # (n, 2) x and y

TOLERANCE = 0.1  # px, of an edge that is straight in one CRS and a curve in the other
SHORT = 16  # px: no projection bends an edge of that length
MARGIN = 0.02  # of its extent, around a raster: more than its rim bends between two samples
SAMPLES = 21  # of a raster's ground, along each axis
NEAR_POLE = 90 - 1e-6  # degrees: the pole itself is nowhere in many projections
FAR = 30  # degrees of longitude: such an edge may be long, though its ends are not far apart
HALVINGS = 20  # of an edge, at most
TURNS = (0, -360, 360)  # degrees: the same place


def bring(
    geometries: Sequence[Geometry],
    boxes: NDArray[np.float64],
    crs: CRS,
    like: rasterio.DatasetReader,
) -> tuple[list[Geometry], NDArray[np.intp]]:
    """Return what comes near a raster of single geometries, in its CRS.

    Polygons are cut off around the raster first: a projection may not know the other side of the
    earth. Long edges get vertices until they bend as they should (RFC 7946, 3.1.1: an edge is
    straight in longitude and latitude).

    Args:
        geometries: points, lines and polygons.
        boxes: (n, 4) left, bottom, right and top of each.
        crs: of their coordinates.
        like: the raster.

    Returns:
        Geometries, and which of those given each is of; some are there twice, on both sides of
        the 180th meridian.

    Raises:
        rasterio.errors.RasterioError, CPLE_BaseError: if a place cannot be brought there.
    """
    ground = _ground(like, crs)
    paths: list[Points] = []
    shapes: list[tuple[str, int]] = []  # kind, and number of paths
    found: list[int] = []
    for turn in TURNS if crs.is_geographic else (0,):
        turned = boxes + np.array([turn, 0, turn, 0])
        for i in np.flatnonzero(meet(turned, ground)).tolist():
            kind, coordinates = geometries[i]["type"], geometries[i]["coordinates"]
            rings = coordinates if kind == "Polygon" else [coordinates]
            moved = [np.atleast_2d(np.asarray(r, float))[:, :2] + [turn, 0] for r in rings]
            if kind == "Polygon":
                moved = [part for ring in moved if len(part := _clip(ring, ground)) > 2]
            if moved:
                paths += moved
                shapes.append((kind, len(moved)))
                found.append(i)
    bent = iter(_bend(paths, crs, like))
    made = []
    for kind, count in shapes:
        parts = [next(bent).tolist() for _ in range(count)]
        inner = parts if kind == "Polygon" else parts[0][0] if kind == "Point" else parts[0]
        made.append({"type": kind, "coordinates": inner})
    return made, np.array(found, np.intp)


def meet(boxes: NDArray[np.float64], box: Bounds) -> NDArray[np.bool_]:
    """Return which of (n, 4) boxes share a point with another one."""
    left, bottom, right, top = boxes.T
    return np.asarray(
        (left <= box[2]) & (right >= box[0]) & (bottom <= box[3]) & (top >= box[1]), bool
    )


def _ground(like: rasterio.DatasetReader, crs: CRS) -> Bounds:
    """Return a box in another CRS that a raster lies in, longitudes being near its middle's.

    It is without end where the CRS does not know all of the raster.
    """
    steps = np.linspace(0, 1, SAMPLES)
    columns, rows = (a.ravel() for a in np.meshgrid(steps * like.width, steps * like.height))
    try:
        points = _transform(np.stack(like.transform * (columns, rows), 1), like.crs, crs)
    except GDAL_ERRORS:
        points = np.full((1, 2), np.nan)
    if not np.isfinite(points).all():
        return -np.inf, -np.inf, np.inf, np.inf
    if crs.is_geographic:
        points[:, 0] = _near(points[:, 0], points[len(points) // 2, 0])
    low, high = points.min(0), points.max(0)
    margin = MARGIN * (high - low)
    low, high = low - margin, high + margin
    if crs.is_geographic:
        low[1], high[1] = max(low[1], -NEAR_POLE), min(high[1], NEAR_POLE)
        for pole in -90, 90:
            if _holds(like, crs, pole):
                low[:], high[:] = (-180, min(low[1], pole)), (180, max(high[1], pole))
    left, bottom, right, top = map(float, (*low, *high))
    return left, bottom, right, top


def _holds(like: rasterio.DatasetReader, crs: CRS, pole: int) -> bool:
    """Tell whether a pole is in a raster."""
    try:
        ((x, y),) = _transform(np.array([[0.0, pole]]), crs, like.crs)
    except GDAL_ERRORS:
        return False
    if not np.isfinite([x, y]).all():
        return False
    column, row = ~like.transform * (x, y)
    return bool(0 <= column <= like.width and 0 <= row <= like.height)


def _near(longitudes: NDArray[np.float64], middle: float) -> NDArray[np.float64]:
    """Return longitudes by so many turns that they are at most half a turn from a middle."""
    near: NDArray[np.float64] = middle + (longitudes - middle + 180) % 360 - 180
    return near


def _clip(ring: Points, box: Bounds) -> Points:
    """Return a ring cut off at a box (Sutherland and Hodgman, 1974), closed.

    What was beyond runs along the box.
    """
    ring = ring[:-1] if (ring[0] == ring[-1]).all() else ring
    for axis, limit, sign in ((0, box[0], 1), (1, box[1], 1), (0, box[2], -1), (1, box[3], -1)):
        inside = sign * ring[:, axis] >= sign * limit
        if inside.all():
            continue
        after = np.roll(ring, -1, 0)
        cuts = inside != np.roll(inside, -1)
        share = np.zeros(len(ring))
        share[cuts] = (limit - ring[cuts, axis]) / (after - ring)[cuts, axis]
        crossings = ring + share[:, None] * (after - ring)
        crossings[:, axis] = limit
        both = np.stack([ring, crossings], 1).reshape(-1, 2)
        ring = both[np.stack([inside, cuts], 1).ravel()]
        if not len(ring):
            return ring
    return np.concatenate([ring, ring[:1]])


def _bend(paths: Sequence[Points], crs: CRS, like: rasterio.DatasetReader) -> list[Points]:
    """Return paths in a raster's CRS, with as many more vertices as their edges take."""
    if not paths:
        return []
    points = np.concatenate(paths)
    there = _to_raster(points, crs, like)
    pixel = abs(like.transform.determinant) ** 0.5
    last = np.zeros(len(points), bool)  # of a path
    last[np.cumsum([len(path) for path in paths]) - 1] = True
    length = np.hypot(*(np.roll(there, -1, 0) - there).T)
    is_long = length > SHORT * pixel
    if crs.is_geographic:  # once around a pole the ends of an edge are one place
        is_long |= abs(np.roll(points[:, 0], -1) - points[:, 0]) > FAR
    edges = np.flatnonzero(~last & is_long & (crs != like.crs))
    for _ in range(HALVINGS):
        if not len(edges):
            break
        a, b = points[edges], points[edges + 1]
        off = np.zeros(len(edges))
        for share in (0.25, 0.5):  # an edge that bends both ways may be right in the middle
            middle = a + share * (b - a)
            is_now = _to_raster(middle, crs, like)
            straight = there[edges] + share * (there[edges + 1] - there[edges])
            off = np.maximum(off, np.hypot(*(is_now - straight).T))
        bends = off > TOLERANCE * pixel
        edges = edges[bends]
        points = np.insert(points, edges + 1, middle[bends], 0)
        there = np.insert(there, edges + 1, is_now[bends], 0)
        last = np.insert(last, edges + 1, False)
        first = edges + np.arange(len(edges))  # where they are now
        edges = np.sort(np.concatenate([first, first + 1]))
    return np.split(there, np.flatnonzero(last)[:-1] + 1)


def _to_raster(points: Points, crs: CRS, like: rasterio.DatasetReader) -> Points:
    if crs == like.crs:
        return points
    there = _transform(points, crs, like.crs)
    left, right = sorted((like.bounds.left, like.bounds.right))
    if like.crs.is_geographic and (left < -180 or right > 180):
        there[:, 0] = _near(there[:, 0], (left + right) / 2)
    return there


def _transform(points: Points, crs: CRS, to: CRS) -> Points:
    x, y = transform(crs, to, points[:, 0].tolist(), points[:, 1].tolist())
    return np.stack([x, y], 1)
