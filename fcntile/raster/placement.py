"""Whether labels lie on a raster: on its grid, or on the same ground."""

from collections.abc import Sequence

import numpy as np
import rasterio
from rasterio.crs import CRS

from fcntile.errors import InputError, reason
from fcntile.raster.gdal import GDAL_ERRORS
from fcntile.raster.ground import TURNS, Bounds, ground, pixel_side

MIN_OVERLAP = 0.01  # of the smaller of two extents


def is_same_grid(labels: rasterio.DatasetReader, like: rasterio.DatasetReader) -> bool:
    """Tell whether two rasters have the same pixels on the ground.

    Labels without any georeference, such as a PNG beside an orthophoto, are on the grid of an image
    of their size. Those with ground control points or RPCs are if the image has the same ones.
    """
    if labels.shape != like.shape:
        return False
    if has_points_only(labels):
        return has_points_only(like) and _points(labels) == _points(like)
    if labels.crs is None and labels.transform.is_identity:
        return True
    # three corners fix a grid: two opposite ones are those of the transposed grid, too
    corners = np.array([(0, 0), (like.width, 0), (0, like.height)]).T
    there, here = np.array(labels.transform * corners), np.array(like.transform * corners)
    tolerance = 1e-3 * pixel_side(like)  # at the far corners
    return bool(labels.crs == like.crs and abs(there - here).max() < tolerance)


def has_points_only(raster: rasterio.DatasetReader) -> bool:
    """Tell whether ground control points or RPCs, and no transform, say where a raster lies."""
    return bool(raster.transform.is_identity and (raster.gcps[0] or raster.rpcs))


def _points(raster: rasterio.DatasetReader) -> tuple[object, ...]:
    """Return the ground control points and RPCs of a raster, as what can be compared."""
    points, crs = raster.gcps
    return [(p.row, p.col, p.x, p.y, p.z) for p in points], crs, raster.rpcs


def check_overlap(
    name: str,
    crs: CRS,
    extent: Bounds,
    like: rasterio.DatasetReader,
    least: float = MIN_OVERLAP,
) -> None:
    """Raise InputError if labels and a raster share too little.

    Args:
        name: of the labels, for messages.
        crs: of the labels.
        extent: of the labels; longitudes may be off by a turn.
        like: the raster.
        least: share of the smaller one's extent that they must have in common; if it is 0, they
            must meet.
    """
    try:
        box = ground(like, crs)
    except GDAL_ERRORS as error:
        raise InputError(
            f"{name} ({crs}, {_show(extent)}) cannot be brought to {like.crs} of "
            f"{like.name}: {reason(error)}"
        ) from error
    left, bottom, right, top = extent
    height = min(top, box[3]) - max(bottom, box[1])
    turns = TURNS if crs.is_geographic else (0,)
    widths = [min(right + turn, box[2]) - max(left + turn, box[0]) for turn in turns]
    smaller = min((right - left) * (top - bottom), (box[2] - box[0]) * (box[3] - box[1]))
    shared = sum(max(0.0, width) for width in widths) * max(0.0, height)
    how = ""
    if height < 0 or max(widths) < 0:
        how = "they do not meet"
    elif shared < least * smaller:
        how = f"they share less than {100 * least:g} % of their extents"
    if how:
        raise InputError(
            f"{name} ({crs}, {_show(extent)}) do not lie on {like.name} "
            f"({like.crs}, {_show(extent_of(like))}): {how}"
        )


def turns_onto(labels: rasterio.DatasetReader, like: rasterio.DatasetReader) -> list[int]:
    """Return by how many degrees of longitude labels are moved to lie on a raster.

    GDAL looks a pixel up at one longitude only: within a CRS at its own, from another one at one
    from -180 to 180 degrees; PROJ leaves it where it is if the other is nearly the same.
    """
    if not labels.crs.is_geographic:
        return [0]
    spans = [(-180.0, 180.0)] if labels.crs != like.crs else []
    if like.crs.is_geographic:
        west, _, east, _ = ground(like, labels.crs)
        spans.append((west, east))
    left, _, right, _ = extent_of(labels)
    return [
        turn
        for turn in TURNS
        if any(left + turn < east and right + turn > west for west, east in spans)
    ]


def extent_of(raster: rasterio.DatasetReader) -> Bounds:
    """Return left, bottom, right and top in this order, for rasters with the south up too."""
    left, bottom, right, top = raster.bounds
    return min(left, right), min(bottom, top), max(left, right), max(bottom, top)


def _show(extent: Sequence[float]) -> str:
    return "extent " + " ".join(f"{v:.7g}" for v in extent)
