"""Labels on the grid of a raster: read by windows, whatever grid or CRS they come in.

Vectors are reprojected once and burned window by window, by GDAL's rule: a pixel belongs to a
polygon if its centre does. Rasters on another grid are warped by nearest neighbour, through a VRT.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import MaskFlags, Resampling
from rasterio.features import bounds, rasterize
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from fcntile.errors import InputError, reason
from fcntile.raster.classes import UNKNOWN, UNLABELLED
from fcntile.raster.gdal import GDAL_ERRORS, open_file
from fcntile.raster.reprojection import Bounds, bring, meet
from fcntile.raster.vectors import Features, Geometry

MIN_OVERLAP = 0.01  # of the smaller of two extents
# Pixels of the labels by which GDAL may interpolate places instead of reprojecting them. By default
# it is an eighth, which is many pixels of an image much finer than its labels; 0 fails in rasterio
WARP_TOLERANCE = 1e-3


class Labels(Protocol):
    """Label values on a raster's grid."""

    def read(self, window: Window) -> NDArray[np.uint16]:
        """Return (height, width) label values, UNLABELLED where there is none."""

    def close(self) -> None:
        """Let go of files."""


class RasterLabels:
    """Labels in a raster.

    Args:
        path: of the label raster, of one band.
        like: the raster whose grid is wanted.
        what: it holds, for messages.

    Raises:
        InputError: if it cannot be read, or does not lie where `like` does.
    """

    def __init__(self, path: str, like: rasterio.DatasetReader, what: str = "labels") -> None:
        self._what = what
        self._file = open_file(path, what)
        try:
            self._grid = self._on_grid(like)
        except BaseException:
            self._file.close()
            raise
        self._is_warped = self._grid is not self._file
        self._is_masked = MaskFlags.all_valid not in self._grid.mask_flag_enums[0]

    def _on_grid(self, like: rasterio.DatasetReader) -> rasterio.DatasetReader | WarpedVRT:
        """Return the labels with the pixels of `like`: the file itself, or warped."""
        labels = self._file
        if labels.count != 1:
            raise InputError(
                f"there are {labels.count} bands in the {self._what} {labels.name}, wanted is one"
            )
        if labels.dtypes[0].startswith("complex"):
            raise InputError(
                f"there is {labels.dtypes[0]} in the {self._what} {labels.name}, wanted are classes"
            )
        return labels if is_same_grid(labels, like) else self._warped(like)

    def _warped(self, like: rasterio.DatasetReader) -> WarpedVRT:
        labels = self._file
        if _has_points_only(labels):
            raise InputError(
                f"{labels.name} has ground control points or RPCs and no transform, and they are "
                f"not those of {like.name}: gdalwarp it first"
            )
        if labels.crs is None or like.crs is None:
            bare = labels if labels.crs is None else like
            raise InputError(
                f"{bare.name} has no CRS, and {labels.name} ({labels.width} x {labels.height} px) "
                f"is not on the grid of {like.name} ({like.width} x {like.height} px)"
            )
        check_overlap(f"the {self._what} {labels.name}", labels.crs, _extent(labels), like)
        try:
            return WarpedVRT(
                labels,
                crs=like.crs,
                transform=like.transform,
                width=like.width,
                height=like.height,
                resampling=Resampling.nearest,
                tolerance=WARP_TOLERANCE,
                # where labels end or have nodata: masks of integers of 64 bits do not say that
                add_alpha=True,
            )
        except GDAL_ERRORS as error:
            raise InputError(
                f"the {self._what} {labels.name} cannot be brought to the grid of {like.name}: "
                f"{reason(error)}"
            ) from error

    def read(self, window: Window) -> NDArray[np.uint16]:
        """Return (height, width) label values, UNLABELLED where there is none.

        Raises:
            InputError: if they cannot be read, or are no whole numbers from 0.
        """
        try:
            values: NDArray[Any] = self._grid.read(1, window=window)
            labelled = self._labelled(window)
        except GDAL_ERRORS as error:
            raise InputError(
                f"cannot read the {self._what} {self._file.name}: {reason(error)}"
            ) from error
        if values.dtype == np.uint8 and labelled is None:
            return values.astype(np.uint16)
        if labelled is not None:
            values = np.where(labelled > 0, values, values.dtype.type(0))
        self._check(values)
        out: NDArray[np.uint16] = values.astype(np.uint16)
        if labelled is not None:
            out[labelled == 0] = UNLABELLED
        return out

    def _labelled(self, window: Window) -> NDArray[Any] | None:
        """Return what is > 0 where there are labels; None if they are everywhere."""
        if self._is_warped:  # alpha itself: masks know it by its dtype only, uint8 or uint16
            alpha: NDArray[Any] = self._grid.read(2, window=window)
            return alpha
        return self._grid.read_masks(1, window=window) if self._is_masked else None

    def _check(self, values: NDArray[Any]) -> None:
        if values.dtype == np.uint8 or not values.size:
            return
        is_whole = values.dtype.kind in "iu" or bool((values == np.floor(values)).all())
        if not is_whole or values.min() < 0 or values.max() >= UNKNOWN:
            raise InputError(
                f"values from {values.min()} to {values.max()} in the {self._what} "
                f"{self._file.name} are no classes, which are whole numbers from 0 to "
                f"{UNKNOWN - 1} (is its nodata value set?)"
            )

    def close(self) -> None:
        """Let go of files."""
        if self._is_warped:
            self._grid.close()
        self._file.close()


class VectorLabels:
    """Labels in a vector file.

    Args:
        features: geometries and field values.
        values: label value of each field value; without a class field every feature is class 1.
            What is in a feature of no known value is UNLABELLED.
        outside: label value of pixels outside all features.
        like: the raster whose grid is wanted.
        least: share of the smaller one's extent that they must have in common.

    Attributes:
        count: geometries that come near the raster.

    Raises:
        InputError: if the features do not lie where `like` does.
    """

    def __init__(
        self,
        features: Features,
        values: Mapping[Any, int],
        outside: int,
        like: rasterio.DatasetReader,
        least: float = MIN_OVERLAP,
    ) -> None:
        if like.crs is None:
            raise InputError(
                f"{like.name} has no CRS, so the {features.what} {features.path} have no place"
            )
        if like.gcps[0] and like.transform.is_identity:
            raise InputError(
                f"{like.name} has ground control points and no transform, so the "
                f"{features.what} {features.path} have no place on it: gdalwarp it first"
            )
        name = f"the {features.what} {features.path}"
        check_overlap(name, features.crs, features.bounds, like, least)
        known = [values.get(v) for v in features.values] or [1] * len(features.geometries)
        try:
            geometries, origins = bring(features.geometries, features.boxes, features.crs, like)
        except GDAL_ERRORS as error:
            raise InputError(
                f"the {features.what} {features.path} ({features.crs}) cannot be brought to "
                f"{like.crs} of {like.name}: {reason(error)}"
            ) from error
        to_pixels = ~like.transform
        self._shapes = [
            (
                _transformed(geometry, to_pixels),
                UNLABELLED if (value := known[i]) is None else value,
            )
            for geometry, i in zip(geometries, origins, strict=True)
        ]
        self._boxes = np.array([bounds(g) for g, _ in self._shapes]).reshape(-1, 4)
        self.count = len(self._shapes)  # geometries near the raster
        self._outside = outside

    def read(self, window: Window) -> NDArray[np.uint16]:
        """Return (height, width) label values, `outside` where there is no feature."""
        shape = int(window.height), int(window.width)
        left, top = int(window.col_off), int(window.row_off)
        near = meet(self._boxes, (left, top, left + shape[1], top + shape[0]))
        inside = [self._shapes[i] for i in np.flatnonzero(near)]
        if not inside:
            return np.full(shape, self._outside, np.uint16)
        # whole pixels are subtracted exactly, whereas each window's place in a CRS is rounded: an
        # edge on pixels' centres would be on either side of them
        shift = rasterio.Affine.translation(left, top)
        return rasterize(  # type: ignore[no-any-return]
            inside, shape, fill=self._outside, transform=shift, dtype="uint16"
        )

    def close(self) -> None:
        """Nothing is open."""


def _transformed(geometry: Geometry, transform: rasterio.Affine) -> Geometry:
    """Return a single geometry with other coordinates."""
    is_polygon = geometry["type"] == "Polygon"
    paths = geometry["coordinates"] if is_polygon else [geometry["coordinates"]]
    # a point's are (2,), those of a path (n, 2)
    points = (np.asarray(path, float) for path in paths)
    moved = [np.stack(transform * (p[..., 0], p[..., 1]), -1).tolist() for p in points]
    return {**geometry, "coordinates": moved if is_polygon else moved[0]}


def is_same_grid(labels: rasterio.DatasetReader, like: rasterio.DatasetReader) -> bool:
    """Tell whether two rasters have the same pixels on the ground.

    Labels without any georeference, such as a PNG beside an orthophoto, are on the grid of an image
    of their size. Those with ground control points or RPCs are if the image has the same ones.
    """
    if labels.shape != like.shape:
        return False
    if _has_points_only(labels):
        return _has_points_only(like) and _points(labels) == _points(like)
    if labels.crs is None and labels.transform.is_identity:
        return True
    # three corners fix a grid: two opposite ones are those of the transposed grid, too
    corners = np.array([(0, 0), (like.width, 0), (0, like.height)]).T
    there, here = np.array(labels.transform * corners), np.array(like.transform * corners)
    tolerance = 1e-3 * abs(like.transform.determinant) ** 0.5  # of a pixel, at the far corners
    return bool(labels.crs == like.crs and abs(there - here).max() < tolerance)


def _has_points_only(raster: rasterio.DatasetReader) -> bool:
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
    """Raise InputError if labels and a raster share less than that of the smaller one's extent."""
    try:
        left, bottom, right, top = transform_bounds(crs, like.crs, *extent)
    except GDAL_ERRORS as error:
        raise InputError(
            f"{name} ({crs}, {_show(extent)}) cannot be brought to {like.crs} of "
            f"{like.name}: {reason(error)}"
        ) from error
    l0, b0, r0, t0 = _extent(like)
    shared = max(0.0, min(right, r0) - max(left, l0)) * max(0.0, min(top, t0) - max(bottom, b0))
    smaller = min((right - left) * (top - bottom), (r0 - l0) * (t0 - b0))
    touch = left <= r0 and right >= l0 and bottom <= t0 and top >= b0
    if not touch or (smaller > 0 and shared / smaller < least):
        raise InputError(
            f"{name} ({crs}, {_show(extent)}) do not lie on {like.name} "
            f"({like.crs}, {_show(_extent(like))}): they share less than 1 % of their extents"
        )


def _extent(raster: rasterio.DatasetReader) -> Bounds:
    """Return left, bottom, right and top in this order, for rasters with the south up too."""
    left, bottom, right, top = raster.bounds
    return min(left, right), min(bottom, top), max(left, right), max(bottom, top)


def _show(extent: Sequence[float]) -> str:
    return "extent " + " ".join(f"{v:.7g}" for v in extent)
