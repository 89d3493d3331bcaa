"""The class table: which label values are which class, with names and colours.

Class ids in a mask are label values: who trains on 11, 41 and 42 gets 11, 41 and 42 back. Several
values may make one class; its id is then the first of them.
"""

import colorsys
import csv
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from fcntile.errors import InputError

UNLABELLED = 65535  # of labels in memory, and the nodata of uint16 masks
UNKNOWN = 65534  # no class has this value
NO_LABEL = 255  # in files, by convention, unless classes reach that far
PALETTE = (
    "#000000", "#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#46f0f0",
    "#f032e6", "#bcf60c", "#fabebe", "#008080", "#e6beff", "#9a6324", "#fffac8", "#800000",
    "#aaffc3", "#808000", "#ffd8b1", "#000075", "#808080",
)  # fmt: skip


@dataclass(frozen=True)
class Class:
    """One class.

    Args:
        values: label values that mean it; the first is its id in masks.
        name: for people.
        color: `#rrggbb`.
    """

    values: tuple[int, ...]
    name: str
    color: str

    @property
    def id(self) -> int:
        """Its value in masks."""
        return self.values[0]


@dataclass(frozen=True)
class Legend:
    """What a file says about its label values.

    Args:
        names: by value.
        colors: `#rrggbb` by value.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    colors: Mapping[int, str] = field(default_factory=dict)


def default_color(value: int) -> str:
    """Return a colour for a class id: distinct for the first ones, of any hue after them.

    >>> default_color(1), default_color(100)
    ('#e6194b', '#b926d9')
    """
    if value < len(PALETTE):
        return PALETTE[value]
    hue = value * 0.618034 % 1  # the golden section spreads hues evenly
    rgb = colorsys.hls_to_rgb(hue, 0.5, 0.7)
    return "#" + bytes(round(255 * v) for v in rgb).hex()


def read_classes(path: str | Path) -> list[Class]:
    """Return the class table in a file.

    CSV has a head line `value,name,color`, of which `color` may be missing; JSON and YAML have a
    list of objects with these keys, or an object `{value: name}`. Rows of the same name are one
    class.

    Args:
        path: `.csv`, `.json`, `.yaml` or `.yml`.

    Raises:
        InputError: if it is no class table, or has no class.
    """
    try:
        rows = _read_rows(Path(path))
        merged: dict[str, Class] = {}
        for row in rows:
            value = _value(row["value"])
            name = _name(row["name"], value)
            color = str(row.get("color") or "").strip().lower() or default_color(value)
            if not re.fullmatch("#[0-9a-f]{6}", color):
                raise ValueError(f"colour {color!r} is not #rrggbb")
            known = merged.get(name, Class((), name, color))
            merged[name] = Class((*known.values, value), name, known.color)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        raise InputError(f"cannot read the class table {path}: {error}") from error
    except KeyError as error:
        raise InputError(f"the class table {path} has a class without {error}") from error
    if not merged:
        raise InputError(f"the class table {path} has no class")
    values = [value for c in merged.values() for value in c.values]
    if twice := {value for value in values if values.count(value) > 1}:
        raise InputError(f"the class table {path} has value {min(twice)} twice")
    return sorted(merged.values(), key=lambda c: c.id)


def _value(given: object) -> int:
    """Return the label value that a table gives, as a number or in digits."""
    if isinstance(given, str) and re.fullmatch("[0-9]{1,5}", given.strip()):
        given = int(given)
    if type(given) is not int or not 0 <= given < UNKNOWN:  # True is an int, too
        raise ValueError(f"value {given!r:.50} is no whole number from 0 to {UNKNOWN - 1}")
    return given


def _name(given: object, value: int) -> str:
    """Return the class name that a table gives a value."""
    if given is not None and not isinstance(given, str) and type(given) is not int:
        raise ValueError(f"the name of value {value} is {given!r:.50}: put a name in quotes")
    name = "" if given is None else str(given).strip()
    if not name:  # it would be one class with all others without one
        raise ValueError(f"value {value} has no name")
    name.encode()  # half a character, as JSON may have it, can be written nowhere
    return name


def _read_rows(path: Path) -> Iterable[Mapping[str, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    content: Any
    if path.suffix.lower() == ".csv":
        return _csv_rows(text)
    if path.suffix.lower() in (".yaml", ".yml"):
        try:
            import yaml
        except ImportError as error:
            raise ValueError(
                "YAML needs PyYAML: pip install 'fcntile[train]', or use CSV or JSON"
            ) from error
        try:
            content = yaml.load(text, _unique_loader(yaml.SafeLoader))
        except yaml.YAMLError as error:
            raise ValueError(" ".join(str(error).split())) from error
    elif path.suffix.lower() == ".json":
        content = json.loads(text, object_pairs_hook=_unique)
    else:
        raise ValueError("its name ends neither in .csv, .json nor .yaml")
    if isinstance(content, dict):
        return [{"value": value, "name": name} for value, name in content.items()]
    return list(content)


def _csv_rows(text: str) -> list[Mapping[str, Any]]:
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
    rows: list[Mapping[Any, Any]] = list(reader)
    columns = reader.fieldnames or []
    if rows and not {"value", "name"} <= set(columns):
        raise ValueError(
            f"its head has {', '.join(map(repr, columns))}, wanted is value,name,color"
        )
    if longer := [row for row in rows if None in row]:
        raise ValueError(f"{longer[0]['value']} has more fields than the head: quote its name")
    return rows


def _unique(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return an object, of which no key was given twice."""
    keys = [key for key, _ in pairs]
    if len(found := dict(pairs)) < len(keys):
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r:.50} is there twice")
    return found


def _unique_loader(loader: Any) -> Any:
    """Return a loader of YAML that refuses a key given twice, as YAML itself does."""

    class Unique(loader):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key for key, _ in node.value if not key.tag.endswith(":merge")]
            _unique([(self.construct_object(key, deep=True), None) for key in keys])
            found: dict[Any, Any] = super().construct_mapping(node, deep)
            return found

    return Unique


def found_classes(values: Iterable[int], legend: Legend) -> list[Class]:
    """Return a class for each value that was found in labels.

    255 is no class, but for labels that also have larger values.

    >>> [c.id for c in found_classes([0, 1, 255], Legend())]
    [0, 1]
    >>> [c.id for c in found_classes([0, 255, 256], Legend())]
    [0, 255, 256]
    """
    found = sorted(set(values))
    if found and found[-1] == NO_LABEL:
        found.pop()
    names = [legend.names.get(value, f"class {value}") for value in found]
    return [
        Class(
            (value,),
            name if names.count(name) == 1 else f"{name} {value}",  # one name, one class
            legend.colors.get(value, default_color(value)),
        )
        for value, name in zip(found, names, strict=True)
    ]


def lookup(classes: Sequence[Class], ignore: Iterable[int] = ()) -> NDArray[np.uint16]:
    """Return a table from label values to positions in `classes`.

    Args:
        classes: the class table.
        ignore: values that count as unlabelled.

    Returns:
        (65536,) with UNLABELLED for what is not to be learned, UNKNOWN for what is no class.
    """
    table = np.full(UNLABELLED + 1, UNKNOWN, np.uint16)
    table[UNLABELLED] = UNLABELLED
    values = [value for c in classes for value in c.values]
    if max(values, default=0) < NO_LABEL:
        table[NO_LABEL] = UNLABELLED
    for position, c in enumerate(classes):
        table[list(c.values)] = position
    table[list(ignore)] = UNLABELLED
    return table


def check_values(found: Iterable[int], table: NDArray[np.uint16], source: str) -> None:
    """Raise InputError if label values were found that the class table does not have."""
    found = sorted(found)
    missing = [value for value in found if table[value] == UNKNOWN]
    if missing:
        raise InputError(
            f"{source} has the values {_listed(found)}, of which {_listed(missing)} is in no row "
            "of the class table: add it to --classes, or leave it out with --ignore"
        )


def _listed(values: Sequence[int]) -> str:
    shown = ", ".join(str(value) for value in values[:20])
    return shown if len(values) <= 20 else f"{shown} and {len(values) - 20} more"


def legend_of(raster: rasterio.DatasetReader) -> Legend:
    """Return the class names and colours that a raster carries.

    Names are GDAL's category names, which GeoTIFFs keep in a `.aux.xml` beside them, or the tags
    that fcntile writes; colours are its colour table.
    """
    names = {}
    try:
        sidecar = ET.parse(f"{raster.name}.aux.xml")
        categories = sidecar.getroot().find("PAMRasterBand/CategoryNames")
    # there is none, its name would be too long, or (the last two) its encoding is unknown
    except (OSError, ET.ParseError, LookupError, ValueError):
        categories = None
    if categories is not None:
        names = {value: c.text for value, c in enumerate(categories) if c.text}
    for key, name in raster.tags(1).items():
        if number := re.fullmatch("CLASS_([0-9]{1,5})", key):
            names[int(number[1])] = name
    names = {value: name for value, name in names.items() if value < UNKNOWN}
    try:
        colors = {value: "#" + bytes(rgba[:3]).hex() for value, rgba in raster.colormap(1).items()}
    except ValueError:  # it has none
        colors = {}
    return Legend(names, colors)
