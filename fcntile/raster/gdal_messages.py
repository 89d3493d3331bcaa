"""What GDAL only mutters: pixels that it guessed, and options that it did not obey."""

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import rasterio

JPEG_GUESSES = re.compile("JPEGLib|libjpeg")  # JPEG in TIFF, and by itself
REFUSED = re.compile("does not support|unexpected value|not a valid value|is not supported", re.I)


@contextmanager
def heard() -> Iterator[list[str]]:
    """Note in a list what GDAL does not do as it was told, which it only mutters."""
    said: list[str] = []

    def note(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if record.levelno >= logging.ERROR or REFUSED.search(message):
            said.append(message)
        return False

    loggers = [logging.getLogger(name) for name in ("rasterio._env", "rasterio._err")]
    levels = [log.level for log in loggers]
    for log in loggers:
        log.addFilter(note)
        log.setLevel(logging.WARNING)
    try:
        with rasterio.Env():
            yield said
    finally:
        for log, level in zip(loggers, levels, strict=True):
            log.removeFilter(note)
            log.setLevel(level)


class _Guesses(logging.Filter):
    """Takes libjpeg's words about damaged data out of the log: GDAL gives guessed pixels then."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[int, list[str]] = {}  # by thread that reads
        self._lock = threading.Lock()
        self._is_installed = False

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        with self._lock:
            if not JPEG_GUESSES.search(message) or not self._said:
                return record.levelno >= logging.getLogger().level  # as without us
            own = self._said.get(threading.get_ident())
            for messages in self._said.values() if own is None else (own,):
                messages.append(message)  # GDAL's own threads may decode for any reader
        return False

    def listen(self) -> None:
        """Begin to note what is said to this thread."""
        with self._lock:
            if not self._is_installed:
                self._install()
            self._said[threading.get_ident()] = []

    def stop(self) -> list[str]:
        """Return what was said to this thread."""
        with self._lock:
            return self._said.pop(threading.get_ident())

    def _install(self) -> None:
        """Stay at rasterio's loggers: a change of their level costs as much as a small read."""
        for name in ("rasterio._env", "rasterio._err"):
            log = logging.getLogger(name)
            log.addFilter(self)
            # a quiet user must not get guesses either
            log.setLevel(min(logging.WARNING, log.getEffectiveLevel()))
        self._is_installed = True


_guesses = _Guesses()


@contextmanager
def strict_gdal() -> Iterator[None]:
    """Send this thread's GDAL messages to the log; raise OSError for pixels that are guesses."""
    _guesses.listen()
    try:
        with rasterio.Env():
            yield
    finally:
        said = _guesses.stop()
    if said:
        raise OSError(said[-1])
