"""Images and their labels: which file goes with which, and how to open the labels on its grid."""

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio

from fcntile.errors import InputError, OptionError
from fcntile.files import same_file
from fcntile.raster.classes import UNLABELLED, Class, Legend, legend_of
from fcntile.raster.gdal import open_file
from fcntile.raster.labels import Labels, RasterLabels, VectorLabels
from fcntile.raster.vectors import (
    BACKGROUND,
    VECTORS,
    Features,
    burn_values,
    is_vector,
    read_features,
)

RASTERS = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Pair:
    """A raster and the file with its labels."""

    image: str
    labels: str


def expand(path: str, suffixes: Sequence[str] = RASTERS) -> list[str]:
    """Return the files that a path means: itself, what a glob matches, what a directory holds.

    Args:
        path: a file, a glob, a directory, or anything that rasterio opens.
        suffixes: of the files to take from a directory, with their dots.

    Raises:
        InputError: if there is no path, a glob matches nothing, or a directory cannot be read or
            holds no such file.
    """
    if not path:  # which would be the current directory
        raise InputError("a path is empty: give a file, a glob or a directory")
    is_directory = os.path.isdir(path)  # noqa: PTH112 (Path.is_dir raises if it is too long)
    if is_directory and Path(path).suffix.lower() not in suffixes:
        files = [str(p) for p in _content(Path(path)) if p.suffix.lower() in suffixes]
        if not files:
            raise InputError(f"the directory {path} holds no {', '.join(suffixes)} file")
        return files
    is_there = os.path.exists(path)  # noqa: PTH110 (as above)
    if glob.has_magic(path) and not is_there and "://" not in path:
        files = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 (Path.glob takes no root)
        if not files:
            # glob itself does not tell a directory that cannot be read from an empty one
            _content(next(p for p in Path(path).parents if not glob.has_magic(str(p))))
            raise InputError(f"no file matches {path}")
        return files
    return [path]


def _content(directory: Path) -> list[Path]:
    """Return what a directory holds, in order.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        return sorted(directory.iterdir())
    except OSError as error:
        raise InputError(f"cannot read the directory {directory}: {error.strerror}") from error


def pair_files(images: Iterable[str], labels: str) -> list[Pair]:
    """Return each image with its labels.

    One file of labels, named itself, serves every image. Those of a glob or directory are paired by
    name: the labels' name is the image's, or goes on after it with a character that is no letter or
    digit and then no digit (`roof_1.tif`, `roof_1_label.tif`, but not `roof_1_2.tif`); or else they
    are the only ones in the image's directory.

    Args:
        images: files, globs or directories; files of labels among a directory's are left out.
        labels: a file, a glob or a directory.

    Raises:
        InputError: if an image has no labels, or more than one file of them.
    """
    label_files = expand(labels, (*RASTERS, *VECTORS))
    taken = {same_file(f) for f in label_files}
    found: dict[str, str] = {}
    for image in images:
        files = expand(image)
        if len(files) > 1:
            files = [f for f in files if same_file(f) not in taken]
            if not files:
                raise InputError(
                    f"{image} and {labels} name the same files: tell images from labels with "
                    "globs, such as '*_image.tif' and '*_label.tif'"
                )
        for file in files:
            found.setdefault(same_file(file), file)
    if label_files == [labels]:
        return [Pair(image, labels) for image in found.values()]
    return [Pair(image, _labels_of(image, label_files)) for image in found.values()]


def _labels_of(image: str, label_files: Sequence[str]) -> str:
    stem = Path(image).stem
    label_files = [f for f in label_files if same_file(f) != same_file(image)]
    same = [f for f in label_files if Path(f).stem == stem]
    longer = [f for f in label_files if _goes_on(Path(f).stem, stem)]
    beside = [f for f in label_files if Path(f).parent == Path(image).parent]
    for candidates in (same, longer, beside):
        here = [f for f in candidates if Path(f).parent == Path(image).parent]
        candidates = here if len(candidates) > 1 and here else candidates
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise InputError(f"{image} could have the labels {' or '.join(candidates[:3])}")
    raise InputError(
        f"{image} has no labels: none of the {len(label_files)} files given is called {stem}.* or "
        f"{stem}_* (and no digit after it)"
    )


def _goes_on(longer: str, stem: str) -> bool:
    return re.match(re.escape(stem) + "[^A-Za-z0-9](?![0-9])", longer) is not None


class LabelSource:
    """The label files of a run; opens them on the grid of any raster.

    Args:
        paths: rasters or vector files.
        class_field: the field of vector features that tells their class; without one every
            feature is class 1.
        outside: what pixels outside of all features are, "background" (class 0) or "unlabelled".
            By default background without a class field, or if the class table has a class 0 that
            no feature has; else unlabelled.
        classes: the class table, if the user gives one.

    Attributes:
        legend: names and colours that the files carry.

    Raises:
        InputError: if a vector file cannot be read, one of its classes is unknown, or a value has
            two names and no class table says which counts.
        OptionError: if there is no vector file for `class_field` or `outside` to mean anything.
    """

    def __init__(
        self,
        paths: Iterable[str],
        *,
        class_field: str | None = None,
        outside: str | None = None,
        classes: Sequence[Class] | None = None,
    ) -> None:
        paths = list(dict.fromkeys(paths))
        self._features = {p: read_features(p, class_field) for p in paths if is_vector(p)}
        for option, given in (("--class-field", class_field), ("--outside", outside)):
            if given is not None and not self._features:
                raise OptionError(
                    f"{option} {given} is for vector labels, but {paths[0]} is a raster: leave "
                    "it out"
                )
        self._values: dict[Any, int] = {}
        self.legend = Legend()
        for path in paths:
            if path not in self._features:
                legend = raster_legend(path)
                if not classes:
                    _check_same(self.legend, legend, path)
                self.legend = _merge(self.legend, legend)
        if self._features:
            self._values, named = burn_values(list(self._features.values()), classes)
            self.legend = _merge(self.legend, named)
        ids = {value for c in classes or () for value in c.values}
        is_background = outside == "background" or (
            outside is None
            and (
                class_field is None
                or (BACKGROUND in ids and BACKGROUND not in self._values.values())
            )
        )
        self._outside = BACKGROUND if is_background else UNLABELLED
        if self._features and is_background:
            names = {BACKGROUND: "background"} | ({} if class_field else {1: "feature"})
            self.legend = _merge(self.legend, Legend(names))

    def open(self, path: str, like: rasterio.DatasetReader) -> Labels:
        """Return the labels of a file on the grid of `like`.

        Raises:
            InputError: if they cannot be read, or do not lie on it.
        """
        features: Features | None = self._features.get(path)
        if features is None:
            return RasterLabels(path, like)
        return VectorLabels(features, self._values, self._outside, like)


def raster_legend(path: str) -> Legend:
    """Return the names and colours that a raster of class ids carries.

    Raises:
        InputError: if it cannot be opened.
    """
    with open_file(path, "labels") as raster:
        return legend_of(raster)


def _check_same(known: Legend, legend: Legend, path: str) -> None:
    """Raise InputError if a file calls a label value otherwise than those before it."""
    for value, name in legend.names.items():
        if name.casefold() != known.names.get(value, name).casefold():
            raise InputError(
                f"label value {value} is {name!r} in {path}, but {known.names[value]!r} in the "
                "files before it: say with --classes what it is"
            )


def _merge(first: Legend, second: Legend) -> Legend:
    """Return two legends as one; what the first says counts."""
    return Legend({**second.names, **first.names}, {**second.colors, **first.colors})
