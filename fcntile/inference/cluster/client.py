"""Give parts out to workers as tasks, and take their files back.

Files come back as bytes, so workers need no shared folder to write to. Dask keeps account of
workers, and gives the parts of a lost one to another. Whatever worker makes a part, its bytes are
the same.
"""

import logging
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from rasterio.windows import Window

from fcntile.errors import NOTE
from fcntile.inference.cluster.connection import connection, workers_of
from fcntile.inference.cluster.crew import Crew
from fcntile.inference.cluster.flights import Flights
from fcntile.inference.cluster.local_workers import local_client
from fcntile.inference.cluster.stretches import Junctions, Stretch, Stretches, divide
from fcntile.inference.cluster.walk import Made, Order
from fcntile.inference.cluster.worker import clear_up
from fcntile.inference.job import Tally, union, walks
from fcntile.inference.stages import Clock
from fcntile.raster.parts import Parts

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

IN_FLIGHT = 2  # parts that a worker has at a time: in the making, and next
WATCH = 0.2  # seconds between two looks at signals
LOOK = 1.0  # seconds between two looks at workers
ALONE = 10.0  # seconds without any worker after which it is said: one that is lost may come back


def have_parts_made(
    crew: Crew,
    order: Order,
    parts: Parts,
    signals: Sequence[int],
    clock: Clock,
    progress: Callable[[int, int], None],
) -> Tally:
    """Have the missing parts of a run made by workers.

    Args:
        crew: who makes them.
        order: what to make.
        parts: of the run.
        signals: that have come so far; the first one ends the run.
        clock: counts the seconds of the workers' stages.
        progress: called with the number of tiles done and of all tiles.

    Raises:
        FcntileError: of the kinds that making parts raises, in whatever worker.
        InputError: if the scheduler cannot be reached, or is lost.
        KeyboardInterrupt: after a signal.
    """
    tally, missing = Tally(), parts.missing()
    if not missing:
        return tally
    total = sum(order.job.tiling.block(union(walk)).count for walk in walks(missing))
    pixels, done = sum(w.width * w.height for w in missing), 0
    known: set[str] | None = set() if crew.scheduler else None  # workers; own ones all are
    with _client(crew, order) as client:
        log.log(NOTE, "dashboard: %s", client.dashboard_link)
        # with an area, parts that nobody walks leave no halves
        count = 1 if order.job.area else len(workers_of(client, known))
        stretches, between = divide(missing, order.job.tiling, count)
        parts.cut(missing, [*chain(*stretches), *between])
        waiting, junctions = Stretches(stretches, order.job.tiling.y), Junctions(between)
        for window, made in _made(client, order, waiting, junctions, signals, known):
            with clock("write"):
                parts.receive(made.files)
            tally.total += made.tiles
            tally.skipped += made.skipped
            for stage, seconds in made.seconds.items():
                clock.seconds[stage] += seconds
            done += window.width * window.height
            progress(round(total * done / pixels), total)
    return tally


@contextmanager
def _client(crew: Crew, order: Order) -> Iterator["Client"]:
    """Connect to the workers; at the end let those of a scheduler close raster and model."""
    if crew.workers:
        on_gpus = order.job.plan.device.type == "cuda"
        with local_client(crew.workers, order.walker.__module__, on_gpus=on_gpus) as client:
            yield client
        return
    assert crew.scheduler
    with connection(crew.scheduler) as client:
        try:
            yield client
        finally:
            with suppress(OSError):
                client.run(clear_up, on_error="ignore")


def _made(
    client: "Client",
    order: Order,
    waiting: Stretches,
    junctions: Junctions,
    signals: Sequence[int],
    known: set[str] | None,
) -> Iterator[tuple[Window, Made]]:
    """Yield parts as workers finish them; after a signal those in the making."""
    flights, present = Flights(client, pickle.dumps(_placed(order))), set[str]()
    last: list[Window] | None = None  # to be waited for after a signal
    seen, said = time.monotonic(), False  # when there was a worker, and whether none is said
    looked, workers = -LOOK, list[str]()
    while waiting or junctions or flights:  # after a signal junctions may be all that is left
        if (now := time.monotonic()) - looked >= LOOK:
            looked, workers = now, workers_of(client, known)
            waiting.keep(workers)
            if workers:
                if present and present.isdisjoint(workers):
                    flights.take_off_again()
                present, seen, said = set(workers), now, False
            elif not said and now - seen > ALONE:
                log.warning("all workers are gone: waiting for a new one")
                said = True
        if signals:
            if last is None:
                last = flights.in_the_making()
            if flights.are_landed(last):
                raise KeyboardInterrupt
        else:
            for worker, route in _orders(waiting, workers, flights.busy()):
                flights.ask_for_part(worker, route, shares=junctions.touch(route[0]))
        if not (landed := flights.next(WATCH)):
            continue
        window, made = landed
        yield window, made
        if not signals:
            for junction, above, below in junctions.add(window, made.worker):
                flights.ask_for_junction(junction, above, below)


def _orders(
    waiting: Stretches, workers: Sequence[str], busy: list[str]
) -> Iterator[tuple[str, Stretch]]:
    """Yield who is to make what next: a part for all who have none, then one ahead for all.

    Args:
        waiting: of which parts are taken.
        workers: that there are.
        busy: workers of the parts that are on their way.
    """
    for depth in range(IN_FLIGHT):
        for worker in workers:
            if busy.count(worker) > depth:
                continue
            if route := waiting.take(worker, ahead=worker in busy):
                busy.append(worker)
                yield worker, route


def _placed(order: Order) -> Order:
    """Return an order whose files are found from any working directory."""

    def whole(path: str) -> str:
        return str(Path(path).absolute()) if Path(path).exists() else path

    job = order.job
    area = whole(job.area) if job.area else None
    # a folder may have the name of a bundled model
    model = whole(job.model) if Path(job.model).is_file() else job.model
    job = replace(job, input=whole(job.input), model=model, area=area)
    return replace(order, job=job)
