"""How commands import what they need."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick() -> Iterator[None]:
    """Import without looking for garbage, and never look for any among what was imported.

    torch makes a quarter of a million objects that stay. To look through them again and again, and
    once more before the process ends, takes 0.6 s: a fifth of a short run.
    """
    gc.collect()  # what is garbage before shall not stay
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
