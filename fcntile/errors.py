"""What can go wrong, one kind per exit code.

A message is one sentence: what was given, what was wanted, what to do. Options are named as they
are typed (`--batch-size`).
"""

import sys
from collections.abc import Iterable

NOTE = 25  # level of log messages that answer what the user asked for: said unless -q


def reason(error: BaseException) -> object:
    """Return why something failed: rasterio's own errors only point to GDAL's."""
    return error.__cause__ or error


class FcntileError(Exception):
    """Root of every error fcntile raises on purpose."""

    exit_code = 1


class OptionError(FcntileError, ValueError):
    """An option has a value that cannot be used."""

    exit_code = 2


class InputError(FcntileError, ValueError):
    """The raster cannot be read, or is not what the model was made for."""

    exit_code = 3


class ModelError(FcntileError, ValueError):
    """The model file cannot be used, or the net gave no usable logits."""

    exit_code = 4


class OutOfMemoryError(FcntileError, MemoryError):
    """The device or the machine has too little memory."""

    exit_code = 5


class OutputError(FcntileError, OSError):
    """The output cannot be written."""

    exit_code = 6


class Stopped(FcntileError):
    """A signal ended the run after its state was saved.

    Args:
        message: how to go on.
        signum: the signal.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum  # as shells have it


def check_choice(option: str, value: str, known: Iterable[str]) -> None:
    """Raise OptionError unless an option has one of its values."""
    if value not in known:
        raise OptionError(f"{option} {value!r} is none of {', '.join(known)}")


def check_range(option: str, value: float, low: float, high: float | None = None) -> None:
    """Raise OptionError unless an option is a number from `low` to `high`, or any finite one."""
    if not low <= value <= (sys.float_info.max if high is None else high):
        wanted = f"{low} or more" if high is None else f"from {low} to {high}"
        raise OptionError(f"{option} {value} is not {wanted}")
