"""A run that is ended goes on from its parts: here is who says so."""

from collections.abc import Iterator
from contextlib import contextmanager

from fcntile.errors import Stopped
from fcntile.inference.signals import caught_signals
from fcntile.raster.parts import Parts

PATIENCE = 8  # seconds that a part may still take after a signal


@contextmanager
def resumable(parts: Parts) -> Iterator[list[int]]:
    """Give the signals that come; once one ends the run, say how to go on.

    Raises:
        Stopped: after a signal.
    """
    with caught_signals(PATIENCE) as signals:
        try:
            yield signals
        except (KeyboardInterrupt, SystemExit) as error:
            done = len(parts.windows) - len(parts.missing())
            if not signals:
                raise
            if not done:
                raise Stopped(
                    "stopped before the first part: nothing was written", signals[0]
                ) from error
            raise Stopped(
                f"stopped: {done} of {len(parts.windows)} parts are kept in {parts.folder}, and "
                "the same command goes on from there",
                signals[0],
            ) from error
