"""End a run in good order when someone asks for it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Note SIGINT and SIGTERM instead of obeying them; a second one is obeyed.

    Only Python's main thread can catch them: in another one none is noted.

    Yields:
        Numbers of the signals that have come so far.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before: dict[int, Any] = {}

    def note(signum: int, frame: FrameType | None) -> None:
        caught.append(signum)
        for number, handler in before.items():
            signal.signal(number, handler)

    for caught_one in (signal.SIGINT, signal.SIGTERM):
        before[caught_one] = signal.signal(caught_one, note)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
