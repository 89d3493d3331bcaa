"""A run that is ended goes on from its parts: here is who says so."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from fcntile.errors import NOTE, FcntileError, Stopped
from fcntile.inference.signals import caught_signals
from fcntile.raster.parts import Parts

log = logging.getLogger(__name__)

PATIENCE = 8  # seconds that a part may still take after a signal


@contextmanager
def resumable(parts: Parts) -> Iterator[list[int]]:
    """Give the signals that come; once one or an error ends the run, say how to go on.

    Raises:
        Stopped: after a signal.
    """
    with caught_signals(PATIENCE) as signals:
        try:
            yield signals
        except FcntileError:
            if kept := _kept(parts):
                log.log(NOTE, "%s", kept)
            raise
        except (KeyboardInterrupt, SystemExit) as error:
            if not signals:
                raise
            kept = _kept(parts) or "no part was finished"
            raise Stopped(f"stopped: {kept}", signals[0]) from error


def _kept(parts: Parts) -> str:
    """Return what there is to go on from; empty if there is nothing."""
    done = len(parts.windows) - len(parts.missing())
    if not done:
        return ""
    return (
        f"{done} of {len(parts.windows)} parts are kept in {parts.folder}, and the same command "
        "goes on from there"
    )
