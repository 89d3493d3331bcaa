"""Bring geometries to a raster's CRS, so that edges stay where they are on the ground."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import TransformError

from fcntile.raster.ground import TURNS, Bounds, Points, change_crs, ground, near, pixel_side
from fcntile.raster.vectors import Geometry

MARGIN = 0.02  # of its extent, around a raster: more than its rim bends between two samples
TOLERANCE = 0.1  # px, of an edge that is straight in one CRS and a curve in the other
SHORT = 16  # px: no projection bends an edge of that length
FAR = 30  # degrees of longitude: such an edge may be long, though its ends are not far apart
PIECES = 32  # of an edge over many degrees: no projection has 180 in one of them
HALVINGS = 20  # of an edge, at most


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
        Geometries, and which of those given each is of, in their order; some are there twice, on
        both sides of the 180th meridian.

    Raises:
        rasterio.errors.RasterioError, CPLE_BaseError: if a place cannot be brought there.
    """
    around = ground(like, crs, MARGIN)
    paths: list[Points] = []
    shapes: list[tuple[int, str, int]] = []  # which geometry, its kind, and number of paths
    for turn in TURNS if crs.is_geographic else (0,):
        moved_boxes = boxes + np.array([turn, 0, turn, 0])
        near_ones = meet(moved_boxes, around)
        if turn:  # one that ends at the 180th meridian is there already
            near_ones &= (moved_boxes[:, 0] < around[2]) & (moved_boxes[:, 2] > around[0])
        for i in np.flatnonzero(near_ones).tolist():
            kind, coordinates = geometries[i]["type"], geometries[i]["coordinates"]
            rings = coordinates if kind == "Polygon" else [coordinates]
            moved = [
                np.atleast_2d(np.asarray(r, float))[:, :2] + np.array([turn, 0]) for r in rings
            ]
            pieces = [moved]
            if kind == "Polygon":
                pieces = [[part for ring in moved if len(part := _clip(ring, around)) > 2]]
            elif kind == "LineString":
                pieces = [[part] for part in _clip_line(moved[0], around)]
            for piece in filter(None, pieces):
                paths += piece
                shapes.append((i, kind, len(piece)))
    bent = iter(_bend(paths, crs, like))
    found: list[tuple[int, Geometry]] = []
    for i, kind, count in shapes:
        moved = [next(bent) for _ in range(count)]
        if kind == "Polygon" and any(abs(ring[0, 0] - ring[-1, 0]) > 180 for ring in moved):
            raise TransformError("a polygon goes around a pole: cut it along a meridian first")
        for parts in _turned(moved, crs, like):
            inner = parts if kind == "Polygon" else parts[0][0] if kind == "Point" else parts[0]
            found.append((i, {"type": kind, "coordinates": inner}))
    found.sort(key=lambda pair: pair[0])  # where they meet, the last one counts
    return [geometry for _, geometry in found], np.array([i for i, _ in found], np.intp)


def _turned(parts: list[Points], crs: CRS, like: rasterio.DatasetReader) -> list[list[Any]]:
    """Return a geometry's coordinates as lists, by as many turns as bring it onto a raster."""
    if crs.is_geographic or not like.crs.is_geographic:  # it was turned before, or cannot be
        return [[part.tolist() for part in parts]]
    longitudes = np.concatenate([part[:, 0] for part in parts])
    left, right = sorted((like.bounds.left, like.bounds.right))
    return [
        [(part + np.array([turn, 0])).tolist() for part in parts]
        for turn in TURNS
        if longitudes.min() + turn <= right and longitudes.max() + turn >= left
    ]


def meet(boxes: NDArray[np.float64], box: Bounds) -> NDArray[np.bool_]:
    """Return which of (n, 4) boxes share a point with another one."""
    left, bottom, right, top = boxes.T
    return np.asarray(
        (left <= box[2]) & (right >= box[0]) & (bottom <= box[3]) & (top >= box[1]), bool
    )


def _clip(ring: Points, box: Bounds) -> Points:
    """Return a ring cut off at a box (Sutherland and Hodgman, 1974), closed.

    What was beyond runs along the box.
    """
    ring = ring[:-1] if (ring[0] == ring[-1]).all() else ring
    for axis, limit, sign in _sides(box):
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


def _clip_line(line: Points, box: Bounds) -> list[Points]:
    """Return the pieces of a line that are in a box."""
    pieces = [line]
    for axis, limit, sign in _sides(box):
        pieces = [part for piece in pieces for part in _cut_off(piece, axis, limit, sign)]
    return pieces


def _cut_off(line: Points, axis: int, limit: float, sign: int) -> list[Points]:
    """Return the pieces of a line on one side of a limit."""
    inside = sign * line[:, axis] >= sign * limit
    if inside.all():
        return [line]
    before = np.flatnonzero(inside[:-1] != inside[1:])
    steps = line[before + 1] - line[before]
    crossings = line[before] + steps * ((limit - line[before, axis]) / steps[:, axis])[:, None]
    crossings[:, axis] = limit
    line, inside = np.insert(line, before + 1, crossings, 0), np.insert(inside, before + 1, True)
    runs = np.split(np.arange(len(line)), np.flatnonzero(inside[:-1] != inside[1:]) + 1)
    return [line[run] for run in runs if inside[run[0]] and len(run) > 1]


def _sides(box: Bounds) -> tuple[tuple[int, float, int], ...]:
    """Return axis and limit of each side of a box, and 1 if what is above it is inside, or -1."""
    return (0, box[0], 1), (1, box[1], 1), (0, box[2], -1), (1, box[3], -1)


def _bend(paths: Sequence[Points], crs: CRS, like: rasterio.DatasetReader) -> list[Points]:
    """Return paths in a raster's CRS, with as many more vertices as their edges take."""
    if not paths:
        return []
    is_unrolled = like.crs.is_geographic and not crs.is_geographic
    if is_unrolled:
        paths = [_split_far(path, crs, like) for path in paths]
    points = np.concatenate(paths)
    last = np.zeros(len(points), bool)  # of a path
    ends = np.cumsum([len(path) for path in paths])
    last[ends - 1] = True
    there = _to_raster(points, crs, like)
    if is_unrolled and (abs(np.diff(there[:, 0])) > 180).any():
        for path in np.split(there, ends[:-1]):  # views
            path[:, 0] = np.unwrap(path[:, 0], period=360)
    length = np.hypot(*(np.roll(there, -1, 0) - there).T)
    is_long = length > SHORT * pixel_side(like)
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
            if is_unrolled:
                is_now[:, 0] = near(is_now[:, 0], straight[:, 0])
            off = np.maximum(off, np.hypot(*(is_now - straight).T))
        bends = off > TOLERANCE * pixel_side(like)
        edges = edges[bends]
        points = np.insert(points, edges + 1, middle[bends], 0)
        there = np.insert(there, edges + 1, is_now[bends], 0)
        last = np.insert(last, edges + 1, False)
        first = edges + np.arange(len(edges))  # where they are now
        edges = np.sort(np.concatenate([first, first + 1]))
    if len(edges):
        x, y = points[edges[0]]
        raise TransformError(
            f"this projection is cut near {x:.7g} {y:.7g}: cut what crosses there first"
        )
    return np.split(there, np.flatnonzero(last)[:-1] + 1)


def _split_far(path: Points, crs: CRS, like: rasterio.DatasetReader) -> Points:
    """Return a projected path with more vertices where it spans many degrees of longitude.

    An edge of half a turn or more would look like one that crosses the 180th meridian.
    """
    there = _to_raster(path, crs, like)[:, 0]
    middles = _to_raster((path[:-1] + path[1:]) / 2, crs, like)[:, 0]
    # once around the earth both ends are one place
    far = np.flatnonzero(np.maximum(abs(np.diff(there)), abs(middles - there[:-1])) > FAR)
    shares = np.arange(1, PIECES)[:, None, None] / PIECES
    more = path[far] + shares * (path[far + 1] - path[far])  # (PIECES - 1, edges, 2)
    return np.insert(path, np.repeat(far + 1, PIECES - 1), more.swapaxes(0, 1).reshape(-1, 2), 0)


def _to_raster(points: Points, crs: CRS, like: rasterio.DatasetReader) -> Points:
    """Return points in a raster's CRS; longitudes of a projection's are near its middle.

    Raises:
        rasterio.errors.TransformError: if the raster's CRS does not know one of them.
    """
    if crs == like.crs:
        return points
    there = change_crs(points, crs, like.crs)
    if not (is_known := np.isfinite(there).all(1)).all():
        x, y = points[~is_known][0]
        raise TransformError(
            f"{x:.7g} {y:.7g} is beyond this projection: clip to what the raster shows first"
        )
    if like.crs.is_geographic and not crs.is_geographic:
        there[:, 0] = near(there[:, 0], (like.bounds.left + like.bounds.right) / 2)
    return there
