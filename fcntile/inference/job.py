"""One run, decided before any work: grid, products, parts, and how one goes from part to part."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import rasterio
from rasterio.windows import Window

from fcntile.errors import OptionError
from fcntile.inference.blend import Halves, Rows
from fcntile.inference.devices import Plan
from fcntile.inference.products import Product, Threshold
from fcntile.inference.tiling import Tiling
from fcntile.models.card import Card
from fcntile.raster.area import Area
from fcntile.raster.outputs import Output

PART_PIXELS = 2 << 20
OUTPUT_BLOCK = 512  # px


@dataclass(frozen=True)
class Job:
    """All that decides the pixels of a run: a process that has it can make any part.

    Args:
        input: what rasterio opens.
        model: name or path.
        plan: where and how the net runs.
        bands: of the input, for the net's channels.
        tiling: the grid.
        products: what is kept of the logits; the mask first.
        threshold: of one class in the mask.
        area: vector file of the ground of interest; None for everything.
    """

    input: str
    model: str
    plan: Plan
    bands: tuple[int, ...]
    tiling: Tiling
    products: tuple[Product, ...]
    threshold: Threshold | None
    area: str | None


@dataclass
class Tally:
    """What making parts took.

    Args:
        total: places of the grid that were gone to, some of them twice.
        skipped: those without a pixel to predict.
    """

    total: int = 0
    skipped: int = 0


class Walks(Protocol):
    """What makes parts: `fcntile.predict.Walker`, as the rooms below it see it."""

    job: Job
    raster: rasterio.DatasetReader
    area: Area | None
    outputs: Sequence[Output]
    halves: Halves | None
    done: int
    skipped: int

    def rows(self, window: Window) -> Generator[Rows, None, None]:
        """Yield what is wanted of a window from top to bottom."""

    def parts(
        self, folder: Path, windows: Sequence[Window]
    ) -> Generator[tuple[Window, list[Path]], None, None]:
        """Yield finished parts: their window, and their files in a folder."""


def parse_threshold(text: str | float | None, card: Card) -> Threshold | None:
    """Return the threshold in `0.3`, of the second of two classes, or in `roof=0.3`.

    Raises:
        OptionError: if it is no probability, or there is no such class.
    """
    if text is None:
        return None
    name, equals, number = str(text).rpartition("=")
    names = [c.name for c in card.classes]
    try:
        probability = float(number)
    except ValueError:
        probability = -1
    if not 0 <= probability <= 1:
        raise OptionError(f"threshold {text!r} is neither a probability from 0 to 1 nor CLASS=P")
    if not equals and len(names) != 2:
        raise OptionError(f"threshold {text}: say of which class, such as {names[-1]}={text}")
    if equals and name not in names:
        raise OptionError(f"threshold {text}: no class is called {name!r}; {', '.join(names)} are")
    return Threshold(names.index(name) if equals else 1, probability)


def part_rows(columns: int) -> int:
    """Return the rows of a part in a swath: about 2 Mpx, whole blocks of the outputs."""
    return max(1, PART_PIXELS // columns // OUTPUT_BLOCK) * OUTPUT_BLOCK


def walks(windows: Sequence[Window]) -> Iterator[list[Window]]:
    """Gather parts as wide as each other that lie below one another: they are walked down at once.

    >>> a, b, c, d = (
    ...     Window(*w) for w in ((0, 0, 9, 5), (0, 5, 9, 5), (0, 10, 4, 5), (4, 10, 5, 5))
    ... )
    >>> [len(walk) for walk in walks([a, b, c, d])]
    [2, 1, 1]
    """
    walk: list[Window] = []
    for window in windows:
        if walk:
            above = walk[-1]
            is_below = window.row_off == above.row_off + above.height
            if not is_below or window.toranges()[1] != above.toranges()[1]:
                yield walk
                walk = []
        walk.append(window)
    if walk:
        yield walk


def union(walk: Sequence[Window]) -> Window:
    """Return the window that parts below one another cover."""
    first, last = walk[0], walk[-1]
    height = last.row_off + last.height - first.row_off
    return Window(first.col_off, first.row_off, first.width, height)


def cut(rows: Iterator[Rows], heights: Sequence[int]) -> Iterator[Rows]:
    """Yield rows again, cut where a part ends and the next begins.

    Args:
        rows: (bands, rows, width) of each product, from top to bottom.
        heights: of the parts; together all rows.
    """
    left = list(heights)
    for block in rows:
        first, count = 0, block[0].shape[1]
        while first < count:
            taken = min(left[0], count - first)
            yield [array[:, first : first + taken] for array in block]
            first += taken
            left[0] -= taken
            if not left[0]:
                left.pop(0)
