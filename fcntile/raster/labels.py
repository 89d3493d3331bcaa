"""Labels on the grid of a raster: read by windows, whatever grid or CRS they come in.

Vectors are reprojected once and burned window by window, by GDAL's rule: a pixel belongs to a
polygon if its centre does. Rasters on another grid are warped by nearest neighbour, through a VRT.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags, Resampling
from rasterio.features import bounds, rasterize
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from fcntile.errors import InputError, reason
from fcntile.raster.classes import UNKNOWN, UNLABELLED
from fcntile.raster.gdal import GDAL_ERRORS, open_file
from fcntile.raster.placement import (
    MIN_OVERLAP,
    check_overlap,
    extent_of,
    has_points_only,
    is_same_grid,
    turns_onto,
)
from fcntile.raster.reprojection import bring, meet
from fcntile.raster.vectors import Features, Geometry

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
            self._check_bands()
            # by turns of 360 degrees; none if labels are on the grid already
            self._warped = [] if is_same_grid(self._file, like) else self._warp(like)
        except BaseException:
            self._file.close()
            raise
        self._is_masked = MaskFlags.all_valid not in self._file.mask_flag_enums[0]

    def _check_bands(self) -> None:
        labels = self._file
        if labels.count != 1:
            raise InputError(
                f"there are {labels.count} bands in the {self._what} {labels.name}, wanted is one"
            )
        if labels.dtypes[0].startswith("complex"):
            raise InputError(
                f"there is {labels.dtypes[0]} in the {self._what} {labels.name}, wanted are classes"
            )

    def _warp(self, like: rasterio.DatasetReader) -> list[WarpedVRT]:
        labels = self._file
        if has_points_only(labels):
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
        check_overlap(f"the {self._what} {labels.name}", labels.crs, extent_of(labels), like)
        try:
            return [_warp_turned(labels, like, turn) for turn in turns_onto(labels, like)]
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
            values, labelled = self._read(window)
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

    def _read(self, window: Window) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Return values, and what is > 0 where there are labels; None if they are everywhere."""
        if not self._warped:
            mask = self._file.read_masks(1, window=window) if self._is_masked else None
            return self._file.read(1, window=window), mask
        first, *others = self._warped
        values, alpha = first.read(1, window=window), first.read(2, window=window)
        for other in others:
            if (alpha > 0).all():
                break
            more = np.where(alpha > 0, 0, other.read(2, window=window))
            values = np.where(more > 0, other.read(1, window=window), values)
            alpha = np.maximum(alpha, more)
        return values, alpha

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
        for warped in self._warped:
            warped.close()
        self._file.close()


def _warp_turned(
    labels: rasterio.DatasetReader, like: rasterio.DatasetReader, turn: int
) -> WarpedVRT:
    """Return labels on a raster's grid, moved by so many degrees, and alpha in a second band."""
    moved = {"src_transform": rasterio.Affine.translation(turn, 0) * labels.transform}
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
        **(moved if turn else {}),
    )


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
        if like.transform.is_degenerate:
            raise InputError(
                f"the transform of {like.name} has no inverse, so the {features.what} "
                f"{features.path} have no place on it"
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
