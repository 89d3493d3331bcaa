"""Which worker makes which part."""

from collections.abc import Collection, Iterator, Sequence

from rasterio.windows import Window

from fcntile.inference.job import union, walks
from fcntile.inference.tiling import Axis, Tiling

Stretch = list[Window]  # parts below one another
Interval = tuple[int, int]  # first pixel, and one past the last
Place = tuple[Window, str]  # a part, and the worker that made it


def divide(
    windows: Sequence[Window], tiling: Tiling, count: int
) -> tuple[list[Stretch], list[Window]]:
    """Cut parts in stretches for workers, so that all have as much to do.

    Each gets as many whole rows of tiles, cut where rows meet, so that none is inferred twice. The
    rows that are left over are cut into columns if they are sooner done so, though one tile of each
    row may be inferred twice at every cut.

    Args:
        windows: of the parts.
        tiling: the grid.
        count: of workers.

    Returns:
        stretches, at least one for each swath, and the junctions below one and above others, of
        which these have halves. All have pixels.

    >>> tiling = Tiling.over(height=1300, width=2048, tile=512, overlap=128, guard=16)
    >>> stretches, junctions = divide([Window(0, 0, 2048, 1300)], tiling, 3)
    >>> [[window.toranges() for window in stretch] for stretch in stretches]
    ... # doctest: +NORMALIZE_WHITESPACE
    [[((0, 400), (0, 2048))], [((496, 784), (0, 2048))], [((880, 1168), (0, 2048))],
     [((1264, 1300), (0, 784))], [((1264, 1300), (784, 1168))], [((1264, 1300), (1168, 2048))]]
    >>> [junction.toranges()[0] for junction in junctions]
    [(400, 496), (784, 880), (1168, 1264)]
    """
    routes = list(walks(windows))
    pixels, workers = [_pixels(route) for route in routes], [1] * len(routes)
    for _ in range(count - len(routes)):
        loads = [size / n for size, n in zip(pixels, workers, strict=True)]
        workers[loads.index(max(loads))] += 1
    stretches, junctions = [], []
    for route, n in zip(routes, workers, strict=True):
        rows, columns = union(route).toranges()
        down, across = _junctions(tiling.y, rows), _junctions(tiling.x, columns)
        low, aside = choose_cuts(len(down) + 1, len(across) + 1, n)
        shared: list[Interval] = []
        for cut in (down[k - 1] for k in low):
            if not shared or shared[-1][1] < cut[0]:  # they touch if nothing but overlap is left
                shared.append(cut)
        *upper, lowest = _between(rows, shared)
        stretches += [_inside(route, here, columns) for here in upper]
        edges = [(across[k - 1][0],) * 2 for k in aside]  # where a junction begins, and no gap
        stretches += [_inside(route, lowest, here) for here in _between(columns, edges)]
        junctions += [union(_inside(route, cut, columns)) for cut in shared if cut[0] < cut[1]]
    return stretches, junctions


def choose_cuts(rows: int, columns: int, workers: int) -> tuple[list[int], list[int]]:
    """Return before which rows of tiles to cut, and before which columns below the last of these.

    >>> choose_cuts(43, 43, 1), choose_cuts(43, 43, 2), choose_cuts(15, 9, 2)
    (([], []), ([21, 42], [22]), ([7, 14], [5]))
    >>> choose_cuts(43, 3, 8), choose_cuts(2, 9, 4)
    (([5, 10, 16, 21, 26, 32, 37], []), ([], [3, 5, 7]))
    """
    each, over = divmod(rows, workers)
    pieces = min(workers, columns)
    inferred = columns + pieces - 1  # tiles of a row, if it is cut into columns
    if over and over * -(-inferred // pieces) < columns:
        aside = [inferred * i // pieces - (i - 1) for i in range(1, pieces)]
        return [each * i for i in range(1, workers + 1)] if each else [], aside
    stretches = min(workers, rows)
    return [rows * i // stretches for i in range(1, stretches)], []  # the last row is lower


def _junctions(axis: Axis, inside: Interval) -> list[Interval]:
    """Return all junctions inside an interval of pixels."""
    found = (axis.junction(k) for k in axis.needed(*inside)[1:])
    return [(first, stop) for first, stop in found if inside[0] < first and stop < inside[1]]


def _between(whole: Interval, cuts: Sequence[Interval]) -> list[Interval]:
    """Return what is left of an interval, before, between and after cuts."""
    starts, stops = [whole[0], *(stop for _, stop in cuts)], [*(start for start, _ in cuts)]
    return list(zip(starts, [*stops, whole[1]], strict=True))


def _inside(route: Stretch, rows: Interval, columns: Interval) -> Stretch:
    """Return what parts have of some rows and columns."""
    found = []
    for window in route:
        (top, bottom), (left, right) = window.toranges()
        here = max(top, rows[0]), min(bottom, rows[1])
        if here[0] < here[1]:
            found.append(Window.from_slices(here, (max(left, columns[0]), min(right, columns[1]))))
    return found


def _pixels(stretch: Stretch) -> int:
    return sum(window.width * window.height for window in stretch)


class Junctions:
    """Parts between stretches: made of the halves that the parts above and below have of them.

    Above each is one part, below may be several, from one side to the other.

    Args:
        windows: of the parts between.
    """

    def __init__(self, windows: Sequence[Window]) -> None:
        self._around: dict[Window, dict[Window, str]] = {window: {} for window in windows}  # made
        self._at: dict[int, list[Window]] = {}  # by the rows where they begin and end
        for window in windows:
            for row in window.toranges()[0]:
                self._at.setdefault(row, []).append(window)

    def __bool__(self) -> bool:
        """Tell whether parts around one of them are still to be made."""
        return bool(self._around)

    def touch(self, part: Window) -> bool:
        """Tell whether a part lies above or below one of them."""
        return bool(self._touched(part))

    def _touched(self, part: Window) -> list[Window]:
        near = [window for row in part.toranges()[0] for window in self._at.get(row, ())]
        return [
            window
            for window in near
            if window in self._around and (_is_above(part, window) or _is_above(window, part))
        ]

    def add(self, part: Window, worker: str) -> Iterator[tuple[Window, Place, list[Place]]]:
        """Note that a worker has made a part; yield the junctions around which all are made.

        Yields:
            window; the part above it, and those below it from the left, with their workers
        """
        for window in self._touched(part):
            around = self._around[window]
            around[part] = worker
            above = [place for place in around.items() if _is_above(place[0], window)]
            below = [place for place in around.items() if _is_above(window, place[0])]
            if above and sum(made.width for made, _ in below) == window.width:
                del self._around[window]
                yield window, above[0], sorted(below, key=lambda place: place[0].col_off)


def _is_above(window: Window, other: Window) -> bool:
    """Tell whether a window lies on another one, which may be narrower."""
    (_, bottom), (left, right) = window.toranges()
    (top, _), (first, stop) = other.toranges()
    return bool(bottom == top and left <= first and stop <= right)


class Stretches:
    """Parts that nobody has been asked for yet, in stretches that workers walk down.

    A worker that walks on from the part above need not infer the row of tiles that reaches into it,
    so each gets a stretch of its own, the largest first. Once all are taken, who has none left gets
    the lower half of the longest one, if there is a row of tiles in it that the worker above does
    not need.

    Args:
        stretches: for whoever comes.
        y: the grid's rows of tiles.

    >>> a, b, c, d = (Window(0, y, 9, 5) for y in (0, 5, 10, 15))
    >>> stretches = Stretches([[a, b, c, d]], Axis(20, 5, 0))
    >>> stretches.take("me") == [a, b, c, d], stretches.take("you") == [c, d]
    (True, True)
    >>> stretches.take("me") == [b], stretches.take("me", ahead=True), stretches.take("me") == [d]
    (True, [], True)
    """

    def __init__(self, stretches: Sequence[Stretch], y: Axis) -> None:
        self._free, self._y = list(stretches), y
        self._owned: dict[str, Stretch] = {}

    def __bool__(self) -> bool:
        """Tell whether there are parts left."""
        return bool(self._free or any(self._owned.values()))

    def take(self, worker: str, *, ahead: bool = False) -> Stretch:
        """Return the next part for a worker, and those below it in its stretch; [] if none is left.

        Only the first is taken; the others tell how far it is likely to walk.

        Args:
            worker: who asks.
            ahead: the worker is still at work: a stretch that is not its own is left to others.
        """
        stretch = self._owned.get(worker) or ([] if ahead else self._next())
        self._owned[worker] = stretch[1:]
        return stretch

    def keep(self, workers: Collection[str]) -> None:
        """Give the stretches of workers that are gone to others."""
        for worker in [w for w in self._owned if w not in workers]:
            if stretch := self._owned.pop(worker):
                self._free.append(stretch)

    def _next(self) -> Stretch:
        if self._free:
            self._free.sort(key=_pixels)
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
