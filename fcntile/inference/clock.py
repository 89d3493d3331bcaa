"""Seconds spent in each stage of a run."""

import threading
import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Clock:
    """Adds up seconds by stage, from any thread.

    >>> clock = Clock()
    >>> with clock("read"):
    ...     pass
    >>> list(clock.seconds)
    ['read']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count the time inside the `with` block towards `stage`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[stage] += time.perf_counter() - start

    def timed(self, stage: str, items: Iterator[T]) -> Generator[T, None, None]:
        """Yield from `items`, counting the time that making each takes towards `stage`."""
        end = object()
        while True:
            with self(stage):
                item = next(items, end)
            if item is end:
                return
            yield item  # type: ignore[misc]
