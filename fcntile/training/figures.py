"""Pictures of numbers, drawn by matplotlib without a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fcntile.errors import OptionError
from fcntile.files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".pdf", ".svg")
MAX_NUMBERS = 15  # classes; more would make cells too small to read
MAX_CURVES = 8  # classes with a curve of their own
MAX_NAME = 24  # characters of a class name
DOTS_PER_INCH = 150


def check_figure(path: str | Path) -> None:
    """Raise OptionError unless a figure of that name can be drawn."""
    new_figure(1, 1)
    if Path(path).suffix.lower() not in FORMATS:
        raise OptionError(f"the plot {path} ends in none of {', '.join(FORMATS)}")


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure; without pyplot nothing outlives it, and no display is needed.

    Args:
        width: inches.
        height: inches.

    Raises:
        OptionError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OptionError("plots need matplotlib: pip install 'fcntile[plot]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def _shown(name: str) -> str:
    """Return a class name that is not too long, and that matplotlib does not take for formulas."""
    short = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
    return short.replace("$", r"\$")


def draw_confusion(path: str | Path, confusion: NDArray[np.int64], names: Sequence[str]) -> None:
    """Draw a confusion matrix: of the pixels of each class, which share became which class.

    Args:
        path: of the picture, which is replaced if it exists.
        confusion: (classes, classes) pixels, rows are labels.
        names: of the classes.

    Raises:
        OptionError: if matplotlib is not installed.
        OutputError: if the picture cannot be written.
    """
    classes, rows = len(names), confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, rows, out=np.full(confusion.shape, np.nan), where=rows > 0)
    names = [_shown(name) for name in names]
    has_numbers = classes <= MAX_NUMBERS
    cell = 0.6 if has_numbers else 0.22  # inches
    longest = 0.08 * max(map(len, names), default=0)
    side = max(2.5, cell * classes)
    figure = new_figure(side + longest + 1.6, side + longest + 0.6)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    slanted: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(classes), names, parse_math=False, **slanted)  # a $ is a $
    axes.set_yticks(range(classes), names, parse_math=False)
    axes.tick_params(length=0, labelsize=9 if has_numbers else 7)
    axes.set(xlabel="mask", ylabel="labels")
    axes.spines[:].set_visible(False)
    if has_numbers:
        _write_numbers(axes, shares)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of label pixels")
    save_figure(figure, path)


def _write_numbers(axes: Any, shares: NDArray[np.float64]) -> None:
    """Write a share into each cell; rows without label pixels stay empty."""
    for (row, column), share in np.ndenumerate(shares):
        if not np.isnan(share):
            color = "white" if share > 0.5 else "black"
            text = "1" if share == 1 else "0" if share == 0 else _two_digits(share)
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=9)


def _two_digits(share: float) -> str:
    """Return a share such that what is neither none nor all does not look so.

    >>> _two_digits(0.126), _two_digits(0.001), _two_digits(0.999)
    ('.13', '<.01', '>.99')
    """
    if share < 0.01:
        return "<.01"
    if share > 0.99:
        return ">.99"
    return f"{share:.2f}"[1:]


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Write a figure beside `path` and give it that name once it is whole.

    Raises:
        OutputError: if it cannot be written.
    """
    with whole_file(Path(path)) as written:
        figure.savefig(written, dpi=DOTS_PER_INCH)


def draw_curves(path: str | Path, rows: Sequence[Mapping[str, float | None]]) -> None:
    """Draw the course of a training run: its loss, and its scores on ground held out.

    Args:
        path: of the picture, which is replaced if it exists.
        rows: of metrics.csv: "step", "loss", and where there was a validation "val_miou",
            "val_pixel_accuracy" and "val_iou <class>".

    Raises:
        OptionError: if matplotlib is not installed.
        OutputError: if the picture cannot be written.
    """
    figure = new_figure(7, 5.5)
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot([row["step"] for row in rows], [row["loss"] for row in rows], color="0.25")
    above.set(ylabel="training loss")
    validations = [row for row in rows if "val_miou" in row]
    steps = [row["step"] for row in validations]
    names = [name for name in (validations or [{}])[0] if name.startswith("val_iou ")]
    if len(names) <= MAX_CURVES:
        for name in names:
            ious = [np.nan if row[name] is None else row[name] for row in validations]
            below.plot(steps, ious, lw=1, alpha=0.8, label=f"IoU {_shown(name[8:])}")
    mark = {"marker": "o", "ms": 3, "color": "black"}
    below.plot(steps, [row["val_miou"] for row in validations], label="mIoU", **mark)
    below.plot(
        steps,
        [row["val_pixel_accuracy"] for row in validations],
        color="0.5",
        ls="--",
        label="pixel accuracy",
    )
    below.set(xlabel="step", ylabel="on ground held out", ylim=(0, 1))
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    if validations:
        below.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    save_figure(figure, path)
