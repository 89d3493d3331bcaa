"""Which worker makes which part."""

from collections.abc import Collection, Sequence

from rasterio.windows import Window

from fcntile.inference.job import walks

Stretch = list[Window]  # parts below one another


class Stretches:
    """Parts that nobody has been asked for yet, in stretches that workers walk down.

    A worker that walks on from the part above need not infer the row of tiles that reaches into it,
    so each gets a stretch of its own; who has none left gets the lower half of the longest one.

    Args:
        windows: of the parts.

    >>> a, b, c, d = (Window(0, y, 9, 5) for y in (0, 5, 10, 15))
    >>> stretches = Stretches([a, b, c, d])
    >>> stretches.take("me") == [a, b, c, d], stretches.take("you") == [c, d]
    (True, True)
    >>> stretches.take("me") == [b], stretches.take("me") == [d], stretches.take("me")
    (True, True, [])
    """

    def __init__(self, windows: Sequence[Window]) -> None:
        self._free = list(walks(windows))
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
        longest = max(self._owned.values(), key=len, default=[])
        half = len(longest) // 2
        lower = longest[half:]
        del longest[half:]
        return lower
