"""Read vector labels: polygons (or lines, points) and one field of them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.features import bounds

from fcntile.errors import InputError, OptionError
from fcntile.raster.classes import UNKNOWN, Class, Legend

GEOJSON = (".geojson", ".json")
VECTORS = (*GEOJSON, ".gpkg", ".shp", ".fgb", ".gdb", ".kml", ".gml", ".parquet")
BACKGROUND = 0  # the class outside polygons, if that is labelled at all
Geometry = dict[str, Any]  # as GeoJSON has it


@dataclass(frozen=True)
class Features:
    """Geometries with a value each.

    Args:
        path: where they are from.
        crs: of their coordinates.
        geometries: as GeoJSON has them.
        values: of the class field; empty without one.
    """

    path: str
    crs: CRS
    geometries: list[Geometry]
    values: list[Any]

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top of all."""
        left, bottom, right, top = zip(*(bounds(g) for g in self.geometries), strict=True)
        return min(left), min(bottom), max(right), max(top)


def is_vector(path: str) -> bool:
    """Tell whether a path looks like a vector file."""
    return Path(path).suffix.lower() in VECTORS


def read_features(path: str, class_field: str | None = None) -> Features:
    """Return the features of a vector file that have a geometry.

    Args:
        path: GeoJSON; with pyogrio installed anything OGR reads.
        class_field: name of the field to take as value.

    Raises:
        InputError: if it cannot be read, is empty, has no CRS, or no such field.
        OptionError: if pyogrio is needed and missing.
    """
    is_geojson = Path(path).suffix.lower() in GEOJSON
    read = _read_geojson if is_geojson else _read_ogr
    try:
        crs, geometries, fields = read(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, CRSError) as error:
        if isinstance(error, InputError | OptionError):
            raise
        raise InputError(f"cannot read the labels {path}: {error}") from error
    if crs is None:
        raise InputError(f"the labels {path} have no CRS: say which with ogr2ogr -a_srs")
    if class_field is not None and not any(class_field in row for row in fields):
        names = ", ".join(sorted({name for row in fields for name in row})) or "none"
        raise InputError(f"no feature of {path} has a field {class_field}; there are: {names}")
    kept = [i for i, geometry in enumerate(geometries) if geometry and _has_points(geometry)]
    if not kept:
        raise InputError(f"the labels {path} have no feature with a geometry")
    values = [fields[i].get(class_field) for i in kept] if class_field else []
    return Features(path, crs, [geometries[i] for i in kept], values)


def _has_points(geometry: Geometry) -> bool:
    return bool(geometry.get("coordinates") or geometry.get("geometries"))


def _read_geojson(path: str) -> tuple[CRS | None, list[Geometry], list[dict[str, Any]]]:
    content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    features = content["features"] if content.get("type") == "FeatureCollection" else [content]
    # RFC 7946 knows WGS 84 only, but GDAL and QGIS still write and read the older member "crs"
    named = (content.get("crs") or {}).get("properties", {}).get("name", "EPSG:4326")
    crs = CRS.from_user_input(named.replace("urn:ogc:def:crs:OGC:1.3:CRS84", "EPSG:4326"))
    return (
        crs,
        [f["geometry"] for f in features],
        [f.get("properties") or {} for f in features],
    )


def _read_ogr(path: str) -> tuple[CRS | None, list[Geometry], list[dict[str, Any]]]:
    try:
        import shapely
        from pyogrio.errors import DataSourceError
        from pyogrio.raw import read
    except ImportError as error:
        raise OptionError(
            f"{Path(path).suffix} labels need pyogrio: pip install 'fcntile[vector]', "
            "or convert them with ogr2ogr labels.geojson"
        ) from error
    try:
        meta, _, shapes, columns = read(path)
    except DataSourceError as error:
        raise InputError(f"cannot read the labels {path}: {error}") from error
    names = [str(name) for name in meta["fields"]]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    geometries = [g and g.__geo_interface__ for g in shapely.from_wkb(shapes)]
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
    except (TypeError, ValueError):
        return None
    return int(number) if number.is_integer() else None


def _is_missing(value: Any) -> bool:
    return value is None or value != value
