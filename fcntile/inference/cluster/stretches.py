"""Which worker makes which part."""

from collections.abc import Collection, Iterator, Sequence
from itertools import chain

from rasterio.windows import Window

from fcntile.inference.job import union, walks
from fcntile.inference.tiling import Axis

Stretch = list[Window]  # parts below one another
Rim = tuple[int, int]  # row and column where a window begins or ends
Place = tuple[Window, str]  # a part, and the worker that made it


def divide(windows: Sequence[Window], y: Axis, count: int) -> tuple[list[Stretch], list[Window]]:
    """Cut parts in a stretch for each worker, where rows of tiles meet: so none is inferred twice.

    Args:
        windows: of the parts.
        y: the grid's rows of tiles.
        count: of workers.

    Returns:
        stretches, and the junctions between them, of which each neighbour has a half. There are
        fewer of both where there are too few rows of tiles, and more stretches where there are more
        swaths than workers. All have pixels.

    >>> y = Axis(1600, 512, 128, guard=16)
    >>> stretches, junctions = divide([Window(0, 0, 9, 1024), Window(0, 1024, 9, 576)], y, 2)
    >>> [[(w.row_off, w.height) for w in stretch] for stretch in stretches]
    [[(0, 784)], [(880, 144), (1024, 576)]]
    >>> [(w.row_off, w.height) for w in junctions]
    [(784, 96)]
    """
    routes = list(walks(windows))
    choices = [_junctions(union(route), y) for route in routes]
    pieces = [1] * len(routes)
    for _ in range(count - len(routes)):
        sizes = [(len(c) + 1) / n for c, n in zip(choices, pieces, strict=True)]
        pieces[sizes.index(max(sizes))] += 1
    stretches, junctions = [], []
    for route, choice, n in zip(routes, choices, pieces, strict=True):
        n = min(n, len(choice) + 1)
        cuts: list[tuple[int, int]] = []
        for i in range(1, n):
            # rounded down: the last row of tiles is low, and a junction comes after the part above
            cut = choice[(len(choice) + 1) * i // n - 1]
            if not cuts or cuts[-1][1] < cut[0]:  # junctions touch if nothing but overlap is left
                cuts.append(cut)
        tops, bottoms = [0, *(stop for _, stop in cuts)], [*(first for first, _ in cuts), y.size]
        stretches += [_between(route, *ends) for ends in zip(tops, bottoms, strict=True)]
        junctions += [union(_between(route, *cut)) for cut in cuts if cut[0] < cut[1]]
    return stretches, junctions


def _junctions(window: Window, y: Axis) -> list[tuple[int, int]]:
    """Return the rows of all junctions inside a window."""
    (top, bottom), _ = window.toranges()
    found = (y.junction(k) for k in y.needed(top, bottom)[1:])
    return [(first, stop) for first, stop in found if top < first and stop < bottom]


def _between(route: Stretch, top: int, bottom: int) -> Stretch:
    """Return what parts have of some rows."""
    return [
        Window.from_slices((max(first, top), min(stop, bottom)), columns)
        for (first, stop), columns in (window.toranges() for window in route)
        if first < bottom and stop > top
    ]


class Junctions:
    """Parts between two stretches: made of the halves that the parts above and below have of them.

    Args:
        windows: of these parts.
    """

    def __init__(self, windows: Sequence[Window]) -> None:
        self._open = {window: _rims(window) for window in windows}
        self._made: dict[Rim, Place] = {}  # the part at a rim

    def touch(self, part: Window) -> bool:
        """Tell whether a part lies at one of them."""
        return not {*_rims(part)}.isdisjoint(chain(*self._open.values()))

    def add(self, part: Window, worker: str) -> Iterator[tuple[Window, Place, Place]]:
        """Note that a worker has made a part; yield the junctions of which both parts are made.

        Yields:
            window, part above it, part below it; parts with their workers
        """
        for window, rims in list(self._open.items()):
            self._made |= dict.fromkeys({*rims}.intersection(_rims(part)), (part, worker))
            if self._made.keys() >= {*rims}:
                del self._open[window]
                above, below = (self._made.pop(rim) for rim in rims)
                yield window, above, below


def _rims(window: Window) -> tuple[Rim, Rim]:
    """Return where a window begins and ends: row and column."""
    (top, bottom), (left, _) = window.toranges()
    return (top, left), (bottom, left)


class Stretches:
    """Parts that nobody has been asked for yet, in stretches that workers walk down.

    A worker that walks on from the part above need not infer the row of tiles that reaches into it,
    so each gets a stretch of its own; who has none left gets the lower half of the longest one, if
    there is a row of tiles in it that the worker above does not need.

    Args:
        stretches: for whoever comes.
        y: the grid's rows of tiles.

    >>> a, b, c, d = (Window(0, y, 9, 5) for y in (0, 5, 10, 15))
    >>> stretches = Stretches([[a, b, c, d]], Axis(20, 5, 0))
    >>> stretches.take("me") == [a, b, c, d], stretches.take("you") == [c, d]
    (True, True)
    >>> stretches.take("me") == [b], stretches.take("me") == [d], stretches.take("me")
    (True, True, [])
    """

    def __init__(self, stretches: Sequence[Stretch], y: Axis) -> None:
        self._free, self._y = list(stretches), y
        self._owned: dict[str, Stretch] = {}

    def __bool__(self) -> bool:
        """Tell whether there are parts left."""
        return bool(self._free or any(self._owned.values()))

    def take(self, worker: str) -> Stretch:
        """Return the next part for a worker, and those below it in its stretch; [] if none is left.

        Only the first is taken; the others tell how far it is likely to walk.
        """
        stretch = self._owned.get(worker) or self._next()
        self._owned[worker] = stretch[1:]
        return stretch

    def keep(self, workers: Collection[str]) -> None:
        """Give the stretches of workers that are gone to others."""
        for worker in [w for w in self._owned if w not in workers]:
            if stretch := self._owned.pop(worker):
                self._free.append(stretch)

    def _next(self) -> Stretch:
        if self._free:
            self._free.sort(key=len)
            return self._free.pop()
        for stretch in sorted(self._owned.values(), key=len, reverse=True):
            for cut in range(len(stretch) // 2, -1, -1):
                lower = stretch[cut:]
                if lower and self._has_own_rows(union(lower)):
                    del stretch[cut:]
                    return lower
        return []

    def _has_own_rows(self, window: Window) -> bool:
        """Tell whether a window needs tiles that the one above it does not need."""
        (top, bottom), _ = window.toranges()
        return self._y.needed(top, bottom)[-1] > self._y.needed(top - 1, top)[-1]
