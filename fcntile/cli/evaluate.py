"""`fcntile evaluate`."""

import sys
from collections.abc import Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import click

from fcntile.cli import importing, options
from fcntile.cli.progress import reporting

if TYPE_CHECKING:
    from fcntile.evaluate import Evaluation

COLUMNS = {"iou": "IoU", "f1": "F1", "precision": "precision", "recall": "recall"}
TOTALS = {
    "miou": "mean IoU",
    "fw_iou": "frequency-weighted IoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "kappa": "kappa",
}
PIXELS = {
    "compared": "pixels compared",
    "mask_nodata": "without a class in the mask",
    "unlabelled": "without a label",
}


@click.command(short_help="Score a mask.")
@click.argument("masks", metavar="MASKS...", nargs=-1, required=True)
@click.argument("labels", metavar="LABELS")
@options.classes
@options.class_field
@options.outside
@options.ignore
@click.option(
    "--tolerance",
    metavar="PX",
    type=click.FloatRange(0, 100),
    help="Score boundaries too: those that the labels have within so many px are right.",
)
@click.option(
    "--bootstrap",
    metavar="ROUNDS",
    type=click.IntRange(min=0),
    default=0,
    help="Give 95 % intervals, from so many draws of blocks of ground: 1000, say.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of these draws."
)
@click.option(
    "--plot", metavar="FILE", help="Draw the confusion matrix; a .png, .pdf or .svg file."
)
@options.overwrite
@options.as_json
@options.progress
def evaluate(as_json: bool, progress: str | None, **values: Any) -> None:
    """Compare masks with labels: how good is a mask?

    MASKS are rasters of class values as `fcntile predict` writes them, or any others of one band
    of whole numbers; globs and directories too. Several are scored as one.

    LABELS is a raster or a vector file, on any grid and in any CRS; or a glob or directory of them,
    paired with the masks by name. They are brought to the grid of the mask.

    Pixels without data in the mask, or without a label, do not count. Which value is which class
    says --classes, or else the mask itself, or else every value that is found is a class.

    \b
    Examples:
      fcntile evaluate mask.tif truth.gpkg
      fcntile evaluate masks/ labels/ --classes classes.csv --bootstrap 1000
      fcntile evaluate mask.tif truth.tif --json | jq .miou
    """
    with importing.quick():
        from fcntile.evaluate import evaluate

    with reporting(progress, unit="row") as report:
        evaluation = evaluate(progress=report, **values)
    if as_json:
        options.print_json(evaluation.as_dict())
    else:
        sys.stdout.writelines(f"{line}\n" for line in _report(evaluation))


def _report(evaluation: "Evaluation") -> Iterator[str]:
    """Yield lines for people: the classes, the totals, and what was counted."""
    result = evaluation.as_dict()
    yield from _aligned(_class_rows(result), left=1)
    yield ""
    yield from _aligned(_total_rows(result), left=0)
    yield ""
    yield from _aligned([[PIXELS[name], f"{n:,}"] for name, n in result["pixels"].items()], left=0)


def _class_rows(result: dict[str, Any]) -> list[list[str]]:
    columns = COLUMNS | ({"boundary_f1": "boundary F1"} if "boundary_f1" in result else {})
    rows = [["value", "class", *columns.values(), "pixels"]]
    for c in result["classes"]:
        scores = [_number(c[name]) for name in columns]
        rows.append([str(c["value"]), c["name"], *scores, f"{c['pixels']:,}"])
    return rows


def _total_rows(result: dict[str, Any]) -> list[list[str]]:
    intervals = result.get("intervals", {})
    rows = []
    if intervals:
        drawn = result["bootstrap"]
        rows.append(["", "", f"95 % over {drawn['blocks']:,} blocks of {drawn['block_side']} px"])
    for name, title in TOTALS.items():
        ends = intervals.get(name)
        between = [" to ".join(map(_number, ends))] if ends else []
        rows.append([title, _number(result[name]), *between])
    if "boundary_f1" in result:
        boundary = result["boundary_f1"]
        title = f"mean boundary F1 ({boundary['tolerance']:g} px)"
        rows.append([title, _number(boundary["mean"])])
    return rows


def _number(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"


def _aligned(rows: list[list[str]], left: int) -> Iterator[str]:
    """Yield rows as lines of aligned columns, of which one is aligned on the left."""
    columns = list(zip_longest(*rows, fillvalue=""))
    widths = [max(map(len, column)) for column in columns]
    for row in rows:
        cells = [
            cell.ljust(width) if i == left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        yield "  ".join(cells).rstrip()
