"""What a signal does to a command that does not catch it: it leaves in good order, and soon."""

import os
import select
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import NoReturn

HANGS = b"Error: stopped in the middle of what hangs; what is finished is kept\n"
LAST = 1.5  # seconds that a command has to leave in good order


class Leaving:
    """Leaves as on an error, so that nothing half done stays behind; soon, whatever hangs.

    What waits for a server that is silent, or computes for long, cannot be stopped: after a while,
    or at the next signal, the process ends as by `kill -9`, which finished parts survive.
    """

    def __init__(self) -> None:
        self._first = 0  # signal that came

    def __call__(self, signum: int, frame: FrameType | None) -> NoReturn:
        """Handle SIGINT or SIGTERM."""
        if self._first:
            os._exit(128 + self._first)
        self._first = signum
        last = threading.Timer(LAST, self._leave_at_once)
        last.daemon = True
        with suppress(RuntimeError):  # no thread can be started any more
            last.start()
        if signum == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + signum)

    def _leave_at_once(self) -> NoReturn:
        with suppress(OSError, ValueError):  # it may be closed
            if select.select([], [sys.stderr.fileno()], [], 0)[1]:  # else nobody reads what it says
                os.write(sys.stderr.fileno(), HANGS)
        os._exit(128 + self._first)
