"""The picture of `fcntile inspect`: maps of every stage, and how far the net looks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.transform import resize

from fcntile.models.card import Card
from fcntile.models.effective_field import EffectiveField
from fcntile.training.figures import new_figure, save_figure

PANEL, GAP = 128, 6  # px of a map, and between two
INCHES = 0.9  # of a panel with its gap
SIDE = 4.4  # inches of the column beside the maps
LOWEST = 1e-5  # of the largest gradient; what is less is drawn alike
MAX_LEGEND = 8  # classes


@dataclass(frozen=True)
class Row:
    """One stage as pictures side by side.

    Args:
        label: what they are, in one or two lines.
        pictures: (h, w, 3) uint8 each.
    """

    label: str
    pictures: Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class Square:
    """A square around a pixel.

    Args:
        side: in px.
        label: for people.
        color: of its line.
        style: of its line.
    """

    side: int
    label: str
    color: str
    style: str


def shade(map: NDArray[np.float32], colors: str = "viridis") -> NDArray[np.uint8]:
    """Return a map in colours that reach from its 2 % to its 98 % value.

    If these are the same, as in a map that is zero nearly everywhere, from least to most.

    Args:
        map: (h, w)
        colors: name of a colour map.

    Returns:
        (H, W, 3), the longer side that of a panel
    """
    from matplotlib import colormaps

    map = _fitted(map)  # first: colours must not be mixed
    low, high = np.percentile(map, (2, 98))
    if low == high:
        low, high = map.min(), map.max()
    scaled = (map - low) / (high - low) if high > low else np.full(map.shape, 0.5)
    return np.asarray(colormaps[colors](scaled.clip(0, 1), bytes=True)[..., :3], np.uint8)


def draw_inspection(
    path: str | Path,
    title: str,
    rows: Sequence[Row],
    card: Card,
    field: EffectiveField,
    ground: NDArray[np.uint8],
    receptive_field: int,
) -> None:
    """Draw the maps of every stage, and beside them the receptive field on the ground.

    Args:
        path: of the picture, which is replaced if it exists.
        title: in one or more lines.
        rows: from the image to the mask.
        card: whose classes the mask shows.
        field: how far the net looks.
        ground: (H, W, 3), the window that it was measured in.
        receptive_field: the theoretical one, in px.

    Raises:
        OptionError: if matplotlib is not installed.
        OutputError: if the picture cannot be written.
    """
    columns = max(len(row.pictures) for row in rows)
    width = max(columns, 4) * INCHES + 1.8
    figure = new_figure(width + SIDE, max(len(rows) * INCHES + 0.8, 10))
    figure.suptitle(title, x=0.01, ha="left", parse_math=False, fontsize=11)
    grid = figure.add_gridspec(3, 2, width_ratios=(width, SIDE), height_ratios=(1, 1, 0.55))
    _draw_rows(figure.add_subplot(grid[:, 0]), rows, columns, card)
    squares = _squares(field, receptive_field)
    limit = min(0.53 * receptive_field, max(ground.shape[:2]) / 2)
    above, middle = figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])
    _draw_ground(above, ground)
    _draw_squares(above, squares, max(limit, 3))
    above.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), fontsize=8, frameon=False)
    gradients = _draw_gradient(middle, field)
    _draw_squares(middle, squares, max(limit, 3))
    figure.colorbar(gradients, ax=middle, shrink=0.8, label="share of the largest")
    _draw_shares(figure.add_subplot(grid[2, 1]), field, squares)
    save_figure(figure, path)


def _draw_rows(axes: Any, rows: Sequence[Row], columns: int, card: Card) -> None:
    """Draw all rows as one image, labelled on the left; classes go beside the mask."""
    from matplotlib.patches import Patch

    step = PANEL + GAP
    whole = np.full((len(rows) * step, columns * step, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row.pictures):
            small = _fitted(picture)
            top, left = i * step, j * step
            whole[top : top + len(small), left : left + small.shape[1]] = small
    axes.imshow(whole, interpolation="antialiased")
    axes.set_anchor("NW")
    middles = [i * step + PANEL / 2 for i in range(len(rows))]
    axes.set_yticks(middles, [row.label for row in rows], parse_math=False, fontsize=8)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.legend(
        handles=[
            Patch(facecolor=c.color, edgecolor="0.5", label=c.name.replace("$", r"\$"))
            for c in card.classes[:MAX_LEGEND]
        ],
        loc="center left",
        bbox_to_anchor=(step, middles[-1]),
        bbox_transform=axes.transData,
        ncols=2,
        frameon=False,
        fontsize=9,
    )


def _fitted(picture: NDArray[Any]) -> NDArray[Any]:
    """Return a picture whose longer side is that of a panel; small maps keep their pixels."""
    scale = PANEL / max(picture.shape[:2])
    shape = [max(1, round(side * scale)) for side in picture.shape[:2]]
    smooth = scale < 1
    made = resize(  # type: ignore[no-untyped-call]
        picture, shape, order=int(smooth), anti_aliasing=smooth, preserve_range=True
    )
    return np.asarray(made, picture.dtype)


def _squares(field: EffectiveField, receptive_field: int) -> list[Square]:
    small, large = field.side(0.95), field.side(0.99)
    return [
        Square(small, f"95 % of the gradient: {small} px", "#1ec8ff", "-"),
        Square(large, f"99 % of the gradient: {large} px", "#3ddc3d", "-"),
        Square(
            receptive_field, f"theoretical receptive field: {receptive_field} px", "#ff5a4d", "--"
        ),
    ]


def _draw_squares(axes: Any, squares: Sequence[Square], limit: float) -> None:
    """Draw squares around the pixel, and their scale in px."""
    from matplotlib.patches import Rectangle

    for s in squares:
        square = Rectangle((-s.side / 2, -s.side / 2), s.side, s.side, fill=False, label=s.label)
        square.set(edgecolor=s.color, linestyle=s.style, linewidth=1.6)
        axes.add_patch(square)
    axes.set(xlim=(-limit, limit), ylim=(limit, -limit), ylabel="px")
    axes.tick_params(labelsize=8)


def _draw_ground(axes: Any, ground: NDArray[np.uint8]) -> None:
    """Draw the image around the pixel, and a cross on that."""
    axes.imshow(ground, extent=_extent(ground))
    axes.set_title("what a pixel of the mask depends on", fontsize=10)
    for color, width in (("white", 3), ("black", 1)):
        axes.plot(0, 0, "+", color=color, ms=9, mew=width)


def _draw_gradient(axes: Any, field: EffectiveField) -> Any:
    """Draw how large the gradient is at each place; return what a colour bar wants."""
    from matplotlib.colors import LogNorm

    share = (field.gradient / field.gradient.max()).clip(LOWEST).numpy()
    axes.set_title(
        f"effective receptive field: |gradient| of the\nbest logit, mean of {field.places} places",
        fontsize=10,
    )
    return axes.imshow(share, cmap="magma", norm=LogNorm(LOWEST, 1), extent=_extent(share))


def _extent(picture: NDArray[Any]) -> tuple[float, float, float, float]:
    """Return left, right, bottom and top of a picture around its middle."""
    height, width = picture.shape[:2]
    return -width / 2, width / 2, height / 2, -height / 2


def _draw_shares(axes: Any, field: EffectiveField, squares: Sequence[Square]) -> None:
    """Draw how much of the gradient a square holds, by its side."""
    shares = field.shares().numpy()
    axes.plot(2 * np.arange(len(shares)) + 1, 100 * shares, color="black")
    for s in squares:
        axes.axvline(s.side, color=s.color, ls=s.style)
    axes.set(
        xlim=(0, max(s.side for s in squares) * 1.05 + 2),
        ylim=(0, 102),
        xlabel="side of a square around the pixel (px)",
        ylabel="% of the gradient in it",
    )
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
