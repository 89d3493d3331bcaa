"""What glibc does with memory that is freed. Imports little: it comes before the first thread."""

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of glibc's malloc.h
MAPPED = 65536  # glibc's default for M_MMAP_MAX


def keep_freed_memory() -> None:
    """Ask glibc to keep what is freed for the next tile, where there is glibc.

    Every forward pass takes and frees the same hundreds of megabytes; given back to the system,
    they are cleared and faulted in again for every tile, which costs 7 % of a run of FCN-8s. All
    threads share one heap, as others hold 64 MB at most and are given back when they are empty; so
    this comes before the first thread.
    """
    with suppress(AttributeError, OSError, TypeError):  # there is no glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)  # what is large comes from the heap, too
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)  # the largest that it takes
        mallopt(M_ARENA_MAX, 1)


def return_freed_maps() -> None:
    """Ask glibc to give back at once what is large: the opposite of `keep_freed_memory`."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(M_MMAP_MAX, MAPPED)


def give_back_freed_memory() -> None:
    """Give back to the system what is freed, where there is glibc."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
