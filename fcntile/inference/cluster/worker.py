"""What a worker of a cluster does: it makes parts, and walks on from one to the next.

It keeps its walk, with the raster open, when a part is made. If the next one is the part below, the
walk has already read and inferred ahead; if not, a new walk begins, with the same net. Of the
junctions at the ends of its stretch it keeps its halves, until both are there and the part between
is made.
"""

import gc
import pickle
import platform
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from rasterio.windows import Window

from fcntile.errors import FcntileError
from fcntile.inference.blend import Half
from fcntile.inference.cluster.walk import Made, Order, Walk, contents, open_engine
from fcntile.inference.devices import choose_device, threads_of_torch
from fcntile.inference.engine import Engine
from fcntile.inference.junction import join
from fcntile.inference.stages import Clock
from fcntile.raster.outputs import class_values
from fcntile.raster.part_files import PartWriter

T = TypeVar("T")

_thread = ThreadPoolExecutor(1, "fcntile")  # all below is in here: whatever thread Dask comes in
_engine: tuple[bytes, Engine] | None = None  # and its order
_walk: tuple[bytes, Walk] | None = None  # likewise
_halves: dict[tuple[bytes, Window, str], Half] = {}  # by order, part and side of it


def make_part(order: bytes, route: Sequence[Window], shares: bool = False) -> Made:
    """Make a part in a worker, on what the part before has left open.

    Args:
        order: pickled.
        route: window of the part, and those below it that will probably be next.
        shares: whether to keep its halves of the junctions above and below it.

    Raises:
        FcntileError: as `fcntile.predict.predict` does, and naming the worker if it cannot begin.
    """
    from distributed import get_worker

    made = _in_thread(_make_part, order, route, shares)
    return replace(made, worker=get_worker().address)


def take_half(order: bytes, part: Window, side: str) -> Half:
    """Return what a part has of a junction, and let go of it.

    If its worker is lost, another one makes the part again.

    Args:
        order: pickled.
        part: made by `make_part`, to be shared.
        side: "above" or "below" it.

    Raises:
        FcntileError: as `make_part` does.
    """
    return _in_thread(_take_half, order, part, side)


def make_junction(order: bytes, window: Window, upper: Half, lower: Sequence[Half]) -> Made:
    """Make the part of a junction, of the halves that the parts above and below it have of it.

    Args:
        order: pickled.
        window: of the part.
        upper: of the part above it.
        lower: of the parts below it, from left to right.

    Raises:
        FcntileError: as `fcntile.predict.predict` does.
    """
    return _in_thread(_make_junction, order, window, upper, lower)


def _in_thread(do: Callable[..., T], *args: object) -> T:
    from distributed import get_worker  # knows it by the thread that Dask comes in

    worker = get_worker()  # whose folder Dask removes even if the process was killed
    making = _thread.submit(do, *args, str(worker.local_directory))
    failure = making.exception()
    if isinstance(failure, FcntileError):
        raise type(failure)(*failure.args)  # without its causes: GDAL's own cannot be pickled
    if failure is not None:
        raise RuntimeError("".join(traceback.format_exception(failure)))
    return making.result()


def clear_up() -> None:
    """Let go of what parts have left, once the part in the making is made."""
    _thread.submit(_forget)


def _make_part(order: bytes, route: Sequence[Window], shares: bool, scratch: str) -> Made:
    global _engine, _walk
    if _walk is None or _walk[0] != order or not _walk[1].leads_to(route[0]):
        _clear_up()
        try:
            known: Order = pickle.loads(order)
            if _engine is None or _engine[0] != order:
                _engine = None  # before there are two
                _engine = order, open_engine(known)
            _walk = order, Walk(known, _engine[1], route, scratch)
        except FcntileError as error:
            raise type(error)(f"worker on {platform.node()}: {error}") from error
    try:
        made = _walk[1].next()
        if shares:
            for side, half in _walk[1].take_halves().items():
                _halves[order, route[0], side] = half
        return made
    except BaseException:
        _clear_up()
        raise


def _clear_up() -> None:
    global _walk
    if _walk is not None:
        _, walk = _walk
        _walk = None
        walk.close()


def _forget() -> None:
    global _engine
    _clear_up()
    _engine = None
    _halves.clear()


def _take_half(order: bytes, part: Window, side: str, scratch: str) -> Half:
    if (order, part, side) not in _halves:
        _make_part(order, [part], True, scratch)
    return _halves.pop((order, part, side))


def _make_junction(
    order: bytes, window: Window, upper: Half, lower: Sequence[Half], scratch: str
) -> Made:
    known: Order = pickle.loads(order)
    job, clock = known.job, Clock()
    with tempfile.TemporaryDirectory(prefix="fcntile-", dir=scratch) as folder:
        # one thread, as where one process blends, for the same bits
        with clock("blend"), threads_of_torch(1):
            device = choose_device(job.plan.device.type)
            rows = join(upper, lower, job.products, device, job.threshold)
        with clock("write"):
            rows[0] = class_values(rows[0], [value for value, *_ in known.outputs[0].classes])
            writer = PartWriter(Path(folder), known.outputs, window)
            writer.write(rows)
            files = contents(writer.finish())
    return Made(files, seconds=dict(clock.seconds))


def survey() -> tuple[str, str]:
    """Return the type of a worker's device, and what its kernels are for."""
    kind = choose_device("auto").type
    if kind == "cuda":
        return kind, torch.cuda.get_device_name()
    return kind, torch.backends.cpu.get_cpu_capability()


def dask_setup(worker: object) -> None:
    """Prepare a worker process that the client has started, as Dask's preload.

    A Ctrl-C in a terminal goes to all its processes; what it means, the client decides.
    """
    gc.freeze()  # modules stay, and memory shared with other workers stays shared
    gc.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.filterwarnings("ignore", "Dataset has no geotransform|The given matrix is equal")
