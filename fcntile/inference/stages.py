"""Stages of a run: each in a thread of its own, and the seconds it takes.

`ahead` runs an iterator in a thread, a bounded number of items ahead of its consumer. Two of them
make read | infer | write: one reads strips while the device works, the other infers while the
caller writes. GDAL and torch release the interpreter's lock, so threads are enough.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from queue import Empty, Queue
from typing import Generic, TypeVar

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


class Tap(Generic[T]):
    """Items on their way: shows each once it is taken, and once closed lets none through.

    Args:
        items: to be passed on.
        show: called with each.
    """

    def __init__(self, items: Iterator[T], show: Callable[[T], None]) -> None:
        self._items, self._show, self._is_closed = items, show, False

    def __iter__(self) -> Iterator[T]:
        """Yield from the items."""
        for item in self._items:
            if self._is_closed:
                return
            yield item
            self._show(item)

    def close(self) -> None:
        """Let nothing through."""
        self._is_closed = True


class _End(Generic[T]):
    """The last thing in a queue, with the error that ended it, if any."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def ahead(
    items: Generator[T, None, None],
    clock: Clock,
    *,
    empty: str,
    full: str,
    stop: Callable[[], None] = lambda: None,
) -> Generator[T, None, None]:
    """Yield from `items`, run in a thread of its own that is up to two items ahead.

    An error in `items` is raised here, as itself. When the consumer stops early, so does the
    thread, and `items` is closed.

    Args:
        items: a generator.
        clock: where waiting is counted.
        empty: name for the time that the consumer waits for `items`.
        full: name for the time that `items` wait for the consumer.
        stop: called when the consumer stops, to end an item that is long in the making.
    """
    queue: Queue[T | _End[T]] = Queue(1)  # one in the queue, one in the making
    stopped = threading.Event()

    def fill() -> None:
        end = _End[T]()
        try:
            with closing(items):
                for item in items:
                    with clock(full):
                        queue.put(item)
                    if stopped.is_set():
                        return
        except BaseException as error:  # whatever it is, it belongs to the consumer
            end = _End(error)
        queue.put(end)

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    try:
        while True:
            with clock(empty):
                item = queue.get()
            if isinstance(item, _End):
                if item.error:
                    raise item.error
                return
            yield item
    finally:
        stopped.set()
        stop()
        while thread.is_alive():
            try:
                queue.get(timeout=0.05)
            except Empty:
                continue
