"""Progress on stderr: a bar for people, JSON lines for programs."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[..., None]  # (done, total, **facts)
INTERVAL = 1.0  # seconds between two JSON lines


@contextmanager
def reporting(kind: str | None, unit: str) -> Iterator[Report]:
    """Give a function to call with done, total and, by keyword, what else is known.

    Args:
        kind: "bar", "json" or "none"; None is a bar if stderr is a terminal, else nothing.
        unit: what is counted.
    """
    if kind is None:
        kind = "bar" if sys.stderr.isatty() else "none"
    if kind == "bar":
        from tqdm import tqdm

        with tqdm(unit=unit, file=sys.stderr) as bar:

            def show(done: int, total: int, **facts: object) -> None:
                if bar.total is None:  # what earlier runs did tells nothing about speed
                    bar.total, bar.initial, bar.n = total, done - 1, done - 1
                bar.set_postfix(facts, refresh=False)
                bar.update(done - bar.n)

            yield show
    elif kind == "json":
        yield _json_lines()
    else:
        yield lambda done, total, **facts: None


def _json_lines() -> Report:
    start = time.monotonic()
    last = start
    first: int | None = None  # done before this run

    def write(done: int, total: int, **facts: object) -> None:
        nonlocal last, first
        first = done - 1 if first is None else first
        now = time.monotonic()
        if now - last < INTERVAL and done < total:
            return
        last = now
        seconds = now - start
        event = {
            "event": "progress",
            "done": done,
            "total": total,
            "seconds": round(seconds, 1),
            "eta_seconds": round(seconds / (done - first) * (total - done), 1),
            **facts,
        }
        print(json.dumps(event), file=sys.stderr, flush=True)

    return write
