"""Dask workers on this machine, which a run starts and ends."""

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.forkserver import ensure_running
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

PRELOAD = "fcntile.inference.cluster.worker"
FORKSERVER = "fcntile.inference.cluster.forkserver"
DASHBOARD = "fcntile.inference.cluster.dashboard"


def start_importing(walker: str) -> None:
    """Begin to import what workers need, while this process goes on with other things.

    On Linux they are forked from one process that has only imported: torch's and Dask's modules
    take seconds. Elsewhere, libraries of the system do not survive a fork.

    Args:
        walker: module of what makes parts.
    """
    if sys.platform == "linux":
        get_context("forkserver").set_forkserver_preload([FORKSERVER, "distributed", walker])
        with _interrupts_ignored():
            ensure_running()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Let processes that are started here never hear a Ctrl-C, which is the client's to obey."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def local_client(workers: int, walker: str, *, on_gpus: bool) -> Iterator["Client"]:
    """Start workers, connect to them, and end them.

    Args:
        workers: how many.
        walker: module of what makes parts.
        on_gpus: each has a GPU of its own.
    """
    import dask
    from distributed import Client

    routes = dask.config.get("distributed.scheduler.http.routes")
    settings: dict[str, Any] = {
        # who has nothing left gets the half of a stretch, which is better than a part out of it
        "distributed.scheduler.work-stealing": False,
        # Dask's profiler and its watch on event loops cost a seventh of a CPU, and see only waiting
        "distributed.worker.profile.enabled": False,
        "distributed.admin.tick.interval": "1s",
        # its look at the machine, twice a second, took a fifth of what the scheduler takes
        "distributed.admin.system-monitor.interval": "2s",
        "distributed.scheduler.http.routes": [*routes, DASHBOARD],
        "distributed.dashboard.link": "{scheme}://{host}:{port}/dashboard",
    }
    if sys.platform == "linux":
        settings["distributed.worker.multiprocessing-method"] = "forkserver"
    start_importing(walker)
    with (
        _muted("distributed"),
        tempfile.TemporaryDirectory(prefix="fcntile-workers-") as folder,
        dask.config.set(settings, temporary_directory=folder),
        _cluster(workers, folder, on_gpus=on_gpus) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        try:
            yield client
        except BaseException:  # Dask would wait for what they are making
            _kill_workers(cluster)
            raise


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


def _cluster(workers: int, folder: str, *, on_gpus: bool) -> Any:
    """Return a scheduler and its workers, a process each."""
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
            "options": {**address, "dashboard": False, "dashboard_address": "127.0.0.1:0"},
        },
        workers={
            i: {"cls": Nanny, "options": {**nanny, "env": _gpu(i) if on_gpus else {}}}
            for i in range(workers)
        },
        security=security,
    )


def _kill_workers(cluster: Any) -> None:
    """End the workers of a run that failed or was stopped; their finished parts are here."""
    for nanny in cluster.workers.values():
        nanny.auto_restart = False
        if nanny.pid:
            with suppress(ProcessLookupError):
                os.kill(nanny.pid, signal.SIGKILL)


def _gpu(index: int) -> dict[str, str]:
    """Return the environment of a process that is to see one GPU of those that this one sees."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[index] if visible else str(index)}
