"""End a run in good order when someone asks for it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def caught_signals(patience: float | None = None) -> Iterator[list[int]]:
    """Note SIGINT and SIGTERM instead of obeying them; a second one is obeyed.

    Only Python's main thread can catch them: in another one none is noted. One that is ignored, as
    SIGINT is by what a script starts in the background, stays so.

    Args:
        patience: seconds after which the first one is obeyed too; by default never.

    Yields:
        Numbers of the signals that have come so far.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before: dict[int, Any] = {}
    both = signal.SIGINT, signal.SIGTERM
    wanted: list[int] = [number for number in both if signal.getsignal(number) != signal.SIG_IGN]

    def note(signum: int, frame: FrameType | None) -> None:
        caught.append(signum)
        for number in wanted:
            signal.signal(number, before[number])
        if patience is not None:
            signal.setitimer(signal.ITIMER_REAL, patience)

    def obey(signum: int, frame: FrameType | None) -> None:
        signal.raise_signal(caught[0])

    for number in wanted:
        before[number] = signal.signal(number, note)
    if patience is not None:
        before[signal.SIGALRM] = signal.signal(signal.SIGALRM, obey)
    try:
        yield caught
    finally:
        if patience is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
