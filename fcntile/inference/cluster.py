"""Parts made by the workers of a Dask cluster: on this machine, or wherever Dask runs.

Parts are tasks, and their files come back as bytes, so workers need no shared folder to write to.
Dask keeps account of workers and gives the parts of a lost one to another. Whatever worker makes a
part, its bytes are the same.
"""

import asyncio
import logging
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import torch
from rasterio.windows import Window

from fcntile.errors import NOTE, InputError, OptionError, OutOfMemoryError
from fcntile.inference.devices import Plan, make_plan
from fcntile.inference.job import union, walks
from fcntile.inference.memory import default_bound, resident_bytes
from fcntile.inference.stages import Clock
from fcntile.inference.stretches import Stretches
from fcntile.inference.worker import Made, Order, clear_up, make_part, survey
from fcntile.raster.parts import Parts

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger(__name__)

IN_FLIGHT = 2  # parts that a worker has at a time: in the making, and next
CONNECTING = 10  # seconds that a scheduler has to answer
WATCH = 0.2  # seconds between two looks at signals and workers
PACKAGES = ("fcntile", "torch")  # whose versions decide the bits
PRELOAD = "fcntile.inference.worker"


@dataclass(frozen=True)
class Crew:
    """Who makes the parts.

    Args:
        workers: processes on this machine; None if a scheduler has workers.
        scheduler: its address; None for workers on this machine.
    """

    workers: int | None
    scheduler: str | None

    def make_plan(
        self, device: str, precision: str, batch_size: int | None, threads: int | None
    ) -> Plan:
        """Return how each worker runs a net, from wishes as `devices.make_plan` has them.

        Threads are those of this machine together; with a scheduler those of each worker.

        Raises:
            OptionError: if workers have no such device, or not all the same.
            InputError: if the scheduler cannot be reached.
        """
        if self.scheduler:
            return _plan_of_workers(self.scheduler, device, precision, batch_size, threads)
        assert self.workers
        plan = make_plan(device, precision, batch_size, threads)
        gpus = torch.cuda.device_count() if plan.device.type == "cuda" else self.workers
        if self.workers > gpus or ":" in device:
            raise OptionError(
                f"{self.workers} workers take a GPU each, and there are {gpus}: use fewer "
                "--workers, and --device cuda or auto"
            )
        return replace(plan, threads=max(1, plan.threads // self.workers))

    def memory(self, most: float | None) -> float | None:
        """Return the bytes that each worker may hold, if all may hold so many."""
        if not self.workers:
            return most
        own = resident_bytes()  # of this process, which puts the parts together
        return max(0.0, (most or default_bound()) - own) / self.workers


def choose_crew(workers: int | None, scheduler: str | None) -> Crew | None:
    """Return who makes the parts; None for this process.

    Raises:
        OptionError: if both are given, or Dask is not there.
    """
    if workers is None and scheduler is None:
        return None
    if workers is not None and scheduler is not None:
        raise OptionError("a scheduler has its own workers: use --workers or --scheduler, not both")
    if workers is not None and workers < 1:
        raise OptionError(f"{workers} workers cannot work: use at least 1")
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise OptionError("clusters need Dask: pip install 'fcntile[cluster]'") from error
    return Crew(workers, scheduler)


@dataclass
class Tally:
    """What workers did.

    Args:
        total: places of the grid that they went to.
        skipped: those without a pixel to predict.
    """

    total: int = 0
    skipped: int = 0


def run(
    crew: Crew,
    order: Order,
    parts: Parts,
    signals: Sequence[int],
    clock: Clock,
    progress: Callable[[int, int], None],
) -> Tally:
    """Have the missing parts made.

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
    total = sum(order.job.tiling.block(union(walk)).count for walk in walks(missing))
    pixels, done = sum(w.width * w.height for w in missing), 0
    with _client(crew, order) as client:
        log.log(NOTE, "dashboard: %s", client.dashboard_link)
        for window, made in _made(client, order, missing, signals):
            with clock("write"):
                parts.receive(made.files)
            tally.total += made.tiles
            tally.skipped += made.skipped
            for stage, seconds in made.seconds.items():
                clock.seconds[stage] += seconds
            done += window.width * window.height
            progress(round(total * done / pixels), total)
    return tally


def _made(
    client: "Client", order: Order, windows: Sequence[Window], signals: Sequence[int]
) -> Iterator[tuple[Window, Made]]:
    """Yield parts as workers finish them."""
    stretches, packed = Stretches(windows), pickle.dumps(_placed(order))
    landed: SimpleQueue[Future] = SimpleQueue()
    flying: dict[Future, tuple[str, Window]] = {}
    known: set[str] = set()
    while stretches or flying:
        workers = _workers(client, known)
        stretches.keep(workers)
        for depth in range(IN_FLIGHT):
            for worker in workers:
                if sum(to == worker for to, _ in flying.values()) > depth:
                    continue
                if route := stretches.take(worker):
                    future = client.submit(
                        make_part,
                        packed,
                        route,
                        workers=[worker],
                        allow_other_workers=True,  # if this one is lost
                        pure=False,
                        retries=1,
                    )
                    flying[future] = worker, route[0]
                    future.add_done_callback(landed.put)
        if signals:
            raise KeyboardInterrupt
        try:
            future = landed.get(timeout=WATCH)
        except Empty:
            continue
        _, window = flying.pop(future)
        yield window, _result(client, future)
        future.release()


def _placed(order: Order) -> Order:
    """Return an order whose files are found from any working directory."""

    def whole(path: str) -> str:
        return str(Path(path).absolute()) if Path(path).exists() else path

    job = order.job
    area = whole(job.area) if job.area else None
    job = replace(job, input=whole(job.input), model=whole(job.model), area=area)
    return replace(order, job=job)


def _result(client: "Client", future: "Future") -> Made:
    """Return the part that a task made, or raise what ended it."""
    from distributed import KilledWorker

    try:
        made: Made = future.result()
    except KilledWorker as error:
        raise OutOfMemoryError(
            f"workers died over the same part again and again (killed for lack of memory?): {error}"
        ) from error
    except (CancelledError, asyncio.CancelledError) as error:
        raise _lost(client, "it closed the connection") from error
    return made


def _lost(client: "Client", why: object) -> InputError:
    return InputError(
        f"lost the scheduler at {client.scheduler.address} ({why}): finished parts are kept, and "
        "the same command goes on from there"
    )


def _workers(client: "Client", known: set[str]) -> list[str]:
    """Return the addresses of the workers that are there; remarks on the first without one.

    Args:
        client: connected.
        known: those that are as they should be; new ones are looked at, and added.

    Raises:
        InputError: if the scheduler is lost, or a new worker has other versions.
    """
    try:
        workers = sorted(client.nthreads())
        if new := set(workers) - known:
            _check_versions(client, new)
            known |= new
    except OSError as error:
        raise _lost(client, error) from error
    return workers


def _check_versions(client: "Client", workers: set[str]) -> None:
    versions = client.get_versions(packages=PACKAGES)
    here = versions["client"]["packages"]
    for worker in workers & set(versions["workers"]):
        there = versions["workers"][worker]["packages"]
        for name in PACKAGES:
            if there.get(name) != here.get(name):
                raise OptionError(
                    f"the worker at {worker} has {name} {there.get(name)}, not {here.get(name)} "
                    "as here: install the same, or bits would differ"
                )


@contextmanager
def _client(crew: Crew, order: Order) -> Iterator["Client"]:
    """Connect to the workers; start those of this machine, and end them."""
    from distributed import Client

    if crew.scheduler:
        with _connection(crew.scheduler) as client, _cleared_up(client):
            yield client
        return
    assert crew.workers
    on_gpus = order.job.plan.device.type == "cuda"
    with (
        _muted("distributed"),
        _settings(order.walker.__module__),
        tempfile.TemporaryDirectory(prefix="fcntile-workers-") as folder,
        _local(crew.workers, folder, on_gpus=on_gpus) as cluster,
        Client(cluster, set_as_default=False) as client,
        _cleared_up(client),
    ):
        yield client


@contextmanager
def _settings(walker: str) -> Iterator[None]:
    """Make Dask's settings for workers on this machine, which will need a module."""
    import dask
    from distributed.utils import get_mp_context

    settings: dict[str, Any] = {
        # who has nothing left gets the half of a stretch, which is better than a part out of it
        "distributed.scheduler.work-stealing": False
    }
    if sys.platform == "linux":  # elsewhere, libraries of the system do not survive a fork
        settings["distributed.worker.multiprocessing-method"] = "forkserver"
    with dask.config.set(settings):
        if sys.platform == "linux":  # imports once, in a process without threads, for all workers
            get_mp_context().set_forkserver_preload(["distributed", walker])
        yield


@contextmanager
def _cleared_up(client: "Client") -> Iterator[None]:
    """Let workers close the raster and the model at the end."""
    try:
        yield
    finally:
        with suppress(OSError):
            client.run(clear_up, on_error="ignore")


@contextmanager
def _muted(name: str) -> Iterator[None]:
    """Keep a logger quiet that tells of each of its steps, unless they are asked for."""
    logger = logging.getLogger(name)
    before = logger.level
    if not log.isEnabledFor(logging.DEBUG):
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _local(workers: int, folder: str, *, on_gpus: bool) -> Any:
    """Start workers on this machine: a process each, with a GPU of its own where there are some."""
    from distributed import Nanny, Scheduler, SpecCluster
    from distributed.security import Security

    security = Security.temporary()  # others on this machine must not talk to our workers
    address = {"protocol": "tls", "host": "127.0.0.1", "security": security}
    nanny = {
        **address,
        "nthreads": 1,
        "memory_limit": None,  # a run knows its own bound
        "local_directory": folder,
        "preload": [PRELOAD],
        "silence_logs": logging.CRITICAL,
        "dashboard": False,
    }
    return SpecCluster(
        scheduler={
            "cls": Scheduler,
            "options": {**address, "dashboard": True, "dashboard_address": "127.0.0.1:0"},
        },
        workers={
            i: {"cls": Nanny, "options": {**nanny, "env": _gpu(i) if on_gpus else {}}}
            for i in range(workers)
        },
        security=security,
    )


def _gpu(index: int) -> dict[str, str]:
    """Return the environment of a process that is to see one GPU of those that this one sees."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[index] if visible else str(index)}


@contextmanager
def _connection(address: str) -> Iterator["Client"]:
    """Connect to a scheduler.

    Raises:
        InputError: if it does not answer.
    """
    from distributed import Client

    try:
        client = Client(address, timeout=CONNECTING, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address}: {error or 'no reason is known'}"
        ) from error
    with client:
        yield client


def _plan_of_workers(
    address: str, device: str, precision: str, batch_size: int | None, threads: int | None
) -> Plan:
    """Return the plan for the workers that a scheduler has now."""
    with _connection(address) as client:
        if not _workers(client, set()):
            log.log(NOTE, "%s has no workers yet: waiting for one", address)
            client.wait_for_workers(1)
            _workers(client, set())
        kinds = set(client.run(survey).values())
        least = min(client.nthreads().values())
    devices = {kind for kind, _ in kinds}
    if device == "auto" and len(devices) > 1:
        raise OptionError(
            f"the workers at {address} have different devices ({', '.join(sorted(devices))}), "
            "whose bits would differ: say --device cpu, or use workers of one kind"
        )
    kind = devices.pop() if device == "auto" else device
    if kind not in ("cpu", "mps", "cuda") or (kind != "cpu" and devices - {kind}):
        raise OptionError(f"not all workers at {address} have a device {kind}: use --device auto")
    if len(kinds) > 1:
        log.warning(
            "workers compute by different kernels (%s): the last bits of logits may differ",
            ", ".join(sorted({name for _, name in kinds})),
        )
    return make_plan(torch.device(kind), precision, batch_size, threads or least)
