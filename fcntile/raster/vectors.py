"""Read vector labels: polygons (or lines, points) and one field of them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import bounds

from fcntile.errors import InputError, OptionError
from fcntile.raster.classes import UNKNOWN, Class, Legend

GEOJSON = (".geojson", ".json")
VECTORS = (*GEOJSON, ".gpkg", ".shp", ".fgb", ".gdb", ".kml", ".gml", ".parquet")
SINGLE = {"Point": 1, "LineString": 2, "Polygon": 3}  # kinds, and points that one (a ring) takes
BACKGROUND = 0  # the class outside polygons, if that is labelled at all
Geometry = dict[str, Any]  # as GeoJSON has it


@dataclass(frozen=True)
class Features:
    """Geometries with a value each.

    Args:
        path: where they are from.
        crs: of their coordinates.
        geometries: single ones as GeoJSON has them, at least one: the parts of what the file has.
        values: of the class field; empty without one.
        what: they are, for messages.
    """

    path: str
    crs: CRS
    geometries: list[Geometry]
    values: list[Any]
    what: str = "labels"

    @cached_property
    def boxes(self) -> NDArray[np.float64]:
        """(n, 4) left, bottom, right and top of each geometry."""
        return np.array([bounds(geometry) for geometry in self.geometries])

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top of all."""
        low, high = self.boxes[:, :2].min(0), self.boxes[:, 2:].max(0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def is_vector(path: str) -> bool:
    """Tell whether a path looks like a vector file."""
    return Path(path).suffix.lower() in VECTORS


def read_features(path: str, class_field: str | None = None, what: str = "labels") -> Features:
    """Return the features of a vector file that have a geometry.

    Args:
        path: GeoJSON; with pyogrio installed anything OGR reads.
        class_field: name of the field to take as value.
        what: the features are, in the plural, for messages.

    Raises:
        InputError: if it cannot be read, is empty, has no CRS, or no such field.
        OptionError: if pyogrio is needed and missing.
    """
    is_geojson = Path(path).suffix.lower() in GEOJSON
    read = _read_geojson if is_geojson else _read_ogr
    try:
        crs, geometries, fields = read(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, InputError | OptionError):
            raise
        raise InputError(f"cannot read the {what} {path}: {error}") from error
    if crs is None:
        raise InputError(f"the {what} {path} have no CRS: say which with ogr2ogr -a_srs")
    if class_field is not None and not any(class_field in row for row in fields):
        names = ", ".join(sorted({name for row in fields for name in row})) or "none"
        raise InputError(f"no feature of {path} has a field {class_field}; there are: {names}")
    values = [row.get(class_field) for row in fields] if class_field else [None] * len(geometries)
    try:
        parts = [
            (part, value)
            for geometry, value in zip(geometries, values, strict=True)
            for part in _parts(geometry)
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"the {what} {path} have a geometry that is none: {error}") from error
    if not parts:
        raise InputError(f"the {what} {path} have no feature with a geometry")
    unhashable = next((v for _, v in parts if isinstance(v, list | dict | np.ndarray)), None)
    if unhashable is not None:
        raise InputError(f"the field {class_field} of {path} has lists, not classes: {unhashable}")
    found, values = zip(*parts, strict=True)
    return Features(path, crs, list(found), list(values) if class_field else [], what)


def _parts(geometry: Geometry | None) -> Iterator[Geometry]:
    """Yield the single geometries of one that may be empty, several or a collection.

    Parts, unlike a nation's islands as a whole, are few in any window of ground.

    Raises:
        TypeError: if coordinates are not numbers, which GDAL would take for memory addresses.
        ValueError: if they are not finite or too few, or the type is none of GeoJSON's.
    """
    if not geometry:
        return
    kind: str = geometry["type"]
    if kind == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from _parts(part)
        return
    single = kind.removeprefix("Multi")
    if single not in SINGLE:
        raise ValueError(f"its type is {kind}: make it one of GeoJSON's with ogr2ogr -nlt")
    coordinates = geometry["coordinates"]
    for part in coordinates if kind.startswith("Multi") else [coordinates]:
        rings = part if single == "Polygon" else [part]
        points = [np.asarray(ring) for ring in rings]
        if not points or not points[0].size:
            continue
        if any(p.dtype.kind not in "iuf" for p in points):
            raise TypeError(f"{kind} with coordinates that are no numbers")
        depth = 1 if single == "Point" else 2  # axes of an array of coordinates
        if any(p.shape != (0,) and (p.ndim != depth or p.shape[-1] < 2) for p in points):
            raise ValueError(f"{kind} with coordinates that are no points")
        if not all(np.isfinite(p).all() for p in points):
            raise ValueError(f"{kind} with coordinates that are not finite")
        if any(p.size and _count(p, single) < SINGLE[single] for p in points):
            raise ValueError(f"{kind} with fewer than {SINGLE[single]} points in a row")
        yield {
            "type": single,
            "coordinates": [ring for ring in part if len(ring)] if single == "Polygon" else part,
        }


def _count(points: NDArray[Any], single: str) -> int:
    """Return how many points a point, line or ring has; a ring's last one may be its first."""
    if single == "Polygon" and (points[0] == points[-1]).all():
        return len(points) - 1
    return 1 if points.ndim == 1 else len(points)


def _read_geojson(path: str) -> tuple[CRS | None, list[Geometry], list[dict[str, Any]]]:
    content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    kind = content.get("type")
    features = content["features"] if kind == "FeatureCollection" else [content]
    if kind not in ("FeatureCollection", "Feature"):
        features = [{"geometry": content}]  # a file may be just that
    crs = _geojson_crs(content.get("crs"))
    rows = [f.get("properties") or {} for f in features]
    if wrong := [row for row in rows if not isinstance(row, dict)]:
        raise ValueError(f"the properties of a feature are {wrong[0]!r:.50}, wanted is an object")
    return crs, [f["geometry"] for f in features], rows


def _geojson_crs(member: Any) -> CRS:
    """Return the CRS that the member "crs" of a GeoJSON file means.

    RFC 7946 knows WGS 84 only, but GDAL and QGIS still write and read the older member.

    Raises:
        ValueError: if it is neither a name nor an EPSG code, or means no CRS.
    """
    if not member:
        return CRS.from_epsg(4326)
    match member:
        case {"properties": {"name": str(name)}}:
            return CRS.from_user_input(name.replace("urn:ogc:def:crs:OGC:1.3:CRS84", "EPSG:4326"))
        case {"properties": {"code": int() | str() as code}} if str(code).isdecimal():
            return CRS.from_epsg(int(code))
    raise ValueError(
        f"its crs is {member!r:.80}, wanted is a name or an EPSG code: "
        "say which with ogr2ogr -a_srs"
    )


def _read_ogr(path: str) -> tuple[CRS | None, list[Geometry], list[dict[str, Any]]]:
    try:
        import shapely
        from pyogrio import list_layers
        from pyogrio.errors import DataLayerError, DataSourceError
        from pyogrio.raw import read
    except ImportError as error:
        raise OptionError(
            f"{Path(path).suffix} files need pyogrio: pip install 'fcntile[vector]', "
            "or convert them to GeoJSON with ogr2ogr"
        ) from error
    try:
        layers = [str(name) for name, kind in list_layers(path) if kind is not None]
        if len(layers) > 1:
            raise ValueError(
                f"it has the layers {', '.join(layers)}: extract one with ogr2ogr one.gpkg "
                f"{path} {layers[0]}"
            )
        if not layers:
            raise ValueError("it has only tables without geometries")
        meta, _, shapes, columns = read(path, layer=layers[0])
        found = shapely.from_wkb(shapes)
    except (DataSourceError, DataLayerError, shapely.errors.ShapelyError) as error:
        raise ValueError(str(error)) from error
    names = [str(name) for name in meta["fields"]]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    geometries = [g and g.__geo_interface__ for g in found]
    crs = CRS.from_user_input(meta["crs"]) if meta["crs"] else None
    return crs, geometries, rows or [{} for _ in geometries]


def burn_values(
    features: Sequence[Features], classes: Sequence[Class] | None
) -> tuple[dict[Any, int], Legend]:
    """Return the label value of each value of the class field, and the names found on the way.

    Whole numbers are label values themselves. Other values are names: of the class table if there
    is one, else of classes numbered from 1 in alphabetical order.

    Args:
        features: of all files.
        classes: the class table, if the user gives one.

    Raises:
        InputError: if a value is no class.
    """
    found = {v for f in features for v in f.values}
    numbers = {v: number for v in found if (number := _whole(v)) is not None}
    names = sorted(str(v) for v in found - numbers.keys() if not _is_missing(v))
    if classes is not None:
        by_name = {c.name: c.id for c in classes}
    elif names and numbers:
        raise InputError(
            f"the class field has numbers and names ({names[0]}): say in --classes which is which"
        )
    else:
        by_name = {name: i for i, name in enumerate(names, 1)}
    if unknown := [name for name in names if name not in by_name]:
        raise InputError(
            f"the class field has the values {', '.join(names[:20])}, of which {unknown[0]} "
            "is in no row of the class table: add it to --classes"
        )
    if wrong := [v for v in numbers.values() if not 0 <= v < UNKNOWN]:
        raise InputError(f"class {wrong[0]} in the class field is not from 0 to {UNKNOWN - 1}")
    values: dict[Any, int] = {**numbers}
    values |= {v: by_name[str(v)] for v in found - numbers.keys() if not _is_missing(v)}
    return values, Legend({i: name for name, i in by_name.items()})


def _whole(value: Any) -> int | None:
    """Return the whole number that a field's value is, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if number.is_integer() else None


def _is_missing(value: Any) -> bool:
    return value is None or value != value
