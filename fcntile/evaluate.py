"""Masks and labels in, scores out: how good is a mask?"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcntile.errors import InputError, check_range
from fcntile.files import check_apart, check_output
from fcntile.raster.classes import (
    UNLABELLED,
    Class,
    Legend,
    default_color,
    found_classes,
    legend_of,
    read_classes,
)
from fcntile.raster.comparison import found_values, open_pair, read_rows, reader
from fcntile.raster.gdal import open_raster, safe_process
from fcntile.raster.sources import LabelSource, Pair, pair_files, raster_legend
from fcntile.raster.vectors import is_vector
from fcntile.training.boundary import boundary_f1, boundary_margin
from fcntile.training.counts import Counts
from fcntile.training.figures import check_figure, draw_confusion
from fcntile.training.metrics import TOTALS, Scores, bootstrap, mean

log = logging.getLogger(__name__)

MAX_CLASSES = 1024  # more are no classes, and their confusion matrix gets too large
MAX_TOLERANCE = 100  # px; boundaries further apart are not the same one
MIN_BLOCK, BLOCKS = 256, 400  # the side of a block of ground in px, and about how many to make
FEW_BLOCKS = 10


@dataclass(frozen=True)
class Bootstrap:
    """How far the scores depend on the ground that was looked at.

    Args:
        rounds: how often blocks were drawn.
        blocks: of ground that has pixels to compare.
        side: of a block in px.
        intervals: 95 % interval of each total.
    """

    rounds: int
    blocks: int
    side: int
    intervals: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Evaluation:
    """How good masks are.

    Args:
        classes: the class table.
        confusion: (classes, classes) pixels, rows are labels.
        scores: of all masks together.
        mask_nodata: pixels that have no class in the mask.
        unlabelled: pixels that have one there, but none in the labels.
        tolerance: of the boundary F1 in px.
        boundary_f1: (classes,), with a tolerance.
        bootstrap: with rounds.
    """

    classes: Sequence[Class]
    confusion: NDArray[np.int64]
    scores: Scores
    mask_nodata: int
    unlabelled: int
    tolerance: float | None = None
    boundary_f1: NDArray[np.float64] | None = None
    bootstrap: Bootstrap | None = None

    @property
    def compared(self) -> int:
        """Pixels that have a class in both."""
        return int(self.confusion.sum())

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold, None for NaN."""
        scores = self.scores
        per_class = {"iou": scores.iou, "f1": scores.f1}
        per_class |= {"precision": scores.precision, "recall": scores.recall}
        result: dict[str, Any] = {name: _or_none(getattr(scores, name)) for name in TOTALS}
        if self.boundary_f1 is not None:
            per_class["boundary_f1"] = self.boundary_f1
            average = _or_none(mean(self.boundary_f1))
            result["boundary_f1"] = {"tolerance": self.tolerance, "mean": average}
        if self.bootstrap is not None:
            ends = self.bootstrap.intervals.items()
            result["intervals"] = {name: [_or_none(end) for end in both] for name, both in ends}
            counts = {"rounds": self.bootstrap.rounds, "blocks": self.bootstrap.blocks}
            result["bootstrap"] = {**counts, "block_side": self.bootstrap.side}
        result["classes"] = [
            {"value": c.id, "name": c.name}
            | {name: _or_none(of_class[i]) for name, of_class in per_class.items()}
            | {"pixels": int(scores.pixels[i])}
            for i, c in enumerate(self.classes)
        ]
        result["confusion_matrix"] = self.confusion.tolist()
        pixels = {"compared": self.compared, "mask_nodata": self.mask_nodata}
        result["pixels"] = {**pixels, "unlabelled": self.unlabelled}
        return result


@safe_process()
def evaluate(
    masks: Sequence[str] | str,
    labels: str,
    *,
    classes: str | Path | None = None,
    class_field: str | None = None,
    outside: str | None = None,
    ignore: Sequence[int] = (),
    tolerance: float | None = None,
    bootstrap: int = 0,
    seed: int = 0,
    plot: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Compare masks with labels; several masks are scored as one.

    Memory is bounded by the masks' width, not their height.

    Args:
        masks: rasters of class values, globs or directories.
        labels: a raster or vector file for all of them, or a glob or directory of one for each,
            found by name. They may have another grid or CRS.
        classes: class table; by default what the masks say about their values, or else a class for
            each value that is found.
        class_field: field of vector labels that tells the class; without it all features are 1.
        outside: what pixels outside of all features are, "background" or "unlabelled".
        ignore: values that count as unlabelled in the labels. In a mask such a class is still an
            answer, a wrong one wherever there is a label; it has no scores itself.
        tolerance: px, 0 to 100; if given, boundaries are scored too.
        bootstrap: rounds of drawing blocks of ground anew; if given, totals get 95 % intervals.
        seed: of these draws.
        plot: path of a picture of the confusion matrix: .png, .pdf or .svg.
        overwrite: replace an existing picture.
        progress: called with the number of rows done and of all rows.

    Raises:
        OptionError: if an option has a value that cannot be used, or needs a package.
        InputError: if a file cannot be read, has values that are no class, or nothing in common.
        OutputError: if the picture exists or cannot be written.
    """
    _check_options(ignore, tolerance, bootstrap)
    pairs = pair_files([masks] if isinstance(masks, str) else masks, labels)
    if plot is not None:
        _check_plot(Path(plot), pairs, overwrite=overwrite)
    shapes, legends = _survey(pairs)
    known = _known_classes(classes, legends.values())
    # without a class table an empty one: nobody could tell which value a feature's name has
    files = LabelSource(
        (p.labels for p in pairs), class_field=class_field, outside=outside, classes=known
    )
    if classes is None and known:
        _remark_on_names(known, legends | _label_legends(pairs))
    table = known or found_classes(found_values(pairs, files), files.legend)
    ignored = [i for i, c in enumerate(table) if set(c.values) <= set(ignore)]
    if (left := len(table) - len(ignored)) > MAX_CLASSES:
        raise InputError(f"{left} classes are more than {MAX_CLASSES}: are these masks?")
    side = _block_side(shapes) if bootstrap else None
    counts = Counts(len(table), tolerance, side, ignored)
    margin = 0 if tolerance is None else boundary_margin(tolerance)
    done, total = 0, sum(height for height, _ in shapes)
    for number, pair in enumerate(pairs):
        with open_pair(pair, files) as (mask, truth, shape):
            read = reader(pair, mask, truth, shape, table, ignore)
            for row, positions, core in read_rows(read, shape, margin):
                counts.add(number, row, positions, core)
                done += core.stop - core.start
                progress(done, total)
    if not counts.confusion.any():
        raise InputError(
            f"nothing to compare: of {counts.total} pixels {counts.mask_nodata} have no class in "
            f"the mask, and {counts.unlabelled} have one there but none in the labels {labels}"
        )
    if plot is not None:
        draw_confusion(plot, counts.confusion, [c.name for c in table])
    return Evaluation(
        classes=table,
        confusion=counts.confusion,
        scores=Scores.of_sums(*counts.sums),
        mask_nodata=counts.mask_nodata,
        unlabelled=counts.unlabelled,
        tolerance=tolerance,
        boundary_f1=None if tolerance is None else boundary_f1(counts.boundary),
        bootstrap=None if side is None else _bootstrap(counts.blocks, side, bootstrap, seed),
    )


def _check_options(ignore: Sequence[int], tolerance: float | None, rounds: int) -> None:
    for value in ignore:
        check_range("--ignore", value, 0, UNLABELLED)
    if tolerance is not None:
        check_range("--tolerance", tolerance, 0, MAX_TOLERANCE)
    check_range("--bootstrap", rounds, 0)


def _check_plot(path: Path, pairs: Sequence[Pair], *, overwrite: bool) -> None:
    check_figure(path)
    check_output(path, overwrite=overwrite)
    check_apart(path, {"an input": [name for p in pairs for name in (p.image, p.labels)]})


def _survey(pairs: Sequence[Pair]) -> tuple[list[tuple[int, int]], dict[str, Legend]]:
    """Return the shapes of the masks, and the legends of those that have one."""
    shapes, legends = [], {}
    for path in (p.image for p in pairs):
        with open_raster(path) as raster:
            if raster.count != 1:
                raise InputError(f"{path} has {raster.count} bands, a mask has one")
            if not raster.dtypes[0].startswith(("uint", "int")):
                raise InputError(f"{path} is {raster.dtypes[0]}, a mask has whole numbers")
            shapes.append(raster.shape)
            legends[path] = legend_of(raster)
    return shapes, {path: legend for path, legend in legends.items() if legend.names}


def _known_classes(path: str | Path | None, legends: Iterable[Legend]) -> list[Class]:
    """Return the class table that the user or the masks give; empty if neither does."""
    if path is not None:
        return read_classes(path)
    named: dict[int, Class] = {}
    for legend in legends:
        for value, name in legend.names.items():
            color = legend.colors.get(value, default_color(value))
            named.setdefault(value, Class((value,), name, color))
    return [named[value] for value in sorted(named)]


def _remark_on_names(classes: Sequence[Class], legends: Mapping[str, Legend]) -> None:
    """Warn if a file calls a value otherwise than the class table does."""
    known = {c.id: c.name for c in classes}
    for path, legend in legends.items():
        for value, name in legend.names.items():
            if name.casefold() != known.get(value, name).casefold():
                log.warning("%d is %r in %s, but %r here", value, name, path, known[value])


def _label_legends(pairs: Sequence[Pair]) -> dict[str, Legend]:
    return {p.labels: raster_legend(p.labels) for p in pairs if not is_vector(p.labels)}


def _block_side(shapes: Iterable[tuple[int, int]]) -> int:
    area = sum(height * width for height, width in shapes)
    return max(MIN_BLOCK, math.ceil(math.sqrt(area / BLOCKS)))


def _bootstrap(blocks: NDArray[np.int64], side: int, rounds: int, seed: int) -> Bootstrap:
    count = blocks.shape[1]
    if count < FEW_BLOCKS:
        log.warning("the intervals rest on %d block(s) of ground only", count)
    return Bootstrap(rounds, count, side, bootstrap(blocks, rounds, seed))


def _or_none(number: Any) -> float | None:
    """Return one of numpy's numbers as a float, None for NaN."""
    return None if np.isnan(number) else float(number)
