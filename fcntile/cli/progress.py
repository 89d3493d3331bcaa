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

    Its `start` is what was done before this process began, which tells nothing about its speed.

    Args:
        kind: "bar", "json" or "none"; None is a bar if stderr is a terminal, else nothing.
        unit: what is counted.
    """
    if kind is None:
        kind = "bar" if sys.stderr.isatty() else "none"
    if kind == "bar":
        from tqdm import tqdm

        with tqdm(unit=unit, file=sys.stderr) as bar:

            def show(done: int, total: int, start: int = 0, **facts: object) -> None:
                if bar.total is None:
                    bar.total, bar.initial, bar.n = total, start, start
                bar.set_postfix(facts, refresh=False)
                bar.update(done - bar.n)

            yield show
    elif kind == "json":
        yield _json_lines()
    else:
        yield lambda done, total, **facts: None


def _json_lines() -> Report:
    began = time.monotonic()
    last = began

    def write(done: int, total: int, start: int = 0, **facts: object) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < INTERVAL and done < total:
            return
        last = now
        seconds, own = now - began, done - start
        event = {
            "event": "progress",
            "done": done,
            "total": total,
            "seconds": round(seconds, 1),
            "eta_seconds": round(seconds / own * (total - done), 1) if own > 0 else None,
            **facts,
        }
        print(json.dumps(event), file=sys.stderr, flush=True)

    return write
