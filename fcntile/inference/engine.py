"""Run the three stages of a prediction at once: read | infer | write.

`ahead` runs an iterator in a thread of its own, a bounded number of items ahead of its consumer.
Two of them join the stages: one reads strips while the device works, the other infers while the
caller writes. GDAL and torch release the interpreter's lock, so threads are enough.

On a CPU the net runs in several workers with one torch thread each, each on its own tiles: that
beats one worker with many threads, and a tile's logits do not depend on how many workers there are.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fcntile.errors import OptionError, OutOfMemoryError
from fcntile.inference.clock import Clock
from fcntile.inference.tiling import Tiling
from fcntile.models.layers import fold_batch_norm
from fcntile.models.model_file import Model
from fcntile.raster.reader import Strip

T = TypeVar("T")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
GPU_BATCH = 8


@dataclass(frozen=True)
class Plan:
    """How to run a net here.

    Args:
        device: where.
        precision: dtype the net computes in; logits are float32 anyway.
        batch_size: tiles per forward pass.
        threads: CPUs to use, for the net or, with a GPU, beside it.
    """

    device: torch.device
    precision: torch.dtype
    batch_size: int
    threads: int

    @property
    def workers(self) -> int:
        """Forward passes at a time."""
        return self.threads if self.device.type == "cpu" else 1


@dataclass(frozen=True)
class Tile:
    """One place of the grid, and what the net says about it.

    Args:
        row: index of its row of tiles.
        column: index in that row.
        logits: (classes, tile, tile) float32 on the device; None if no pixel is valid.
        valid: (tile, tile) bool on the device; None if every pixel is.
    """

    row: int
    column: int
    logits: Tensor | None
    valid: Tensor | None


@dataclass(frozen=True)
class Batch:
    """Tiles in row-major order, and the pixels of those that have any.

    Args:
        places: (row, column, index into `pixels` or None) of each tile.
        pixels: (n, tile, tile, bands) in the raster's dtype.
        valid: (n, tile, tile) bool; None if every pixel is.
    """

    places: list[tuple[int, int, int | None]]
    pixels: NDArray[np.generic] | None
    valid: NDArray[np.bool_] | None


def infer(
    model: Model, strips: Iterable[Strip], tiling: Tiling, plan: Plan, clock: Clock
) -> Iterator[Tile]:
    """Yield every tile of the grid in row-major order, with its logits.

    Args:
        model: the net and its card.
        strips: the raster, one strip for each row of tiles.
        tiling: the grid.
        plan: where and how.
        clock: counts the seconds of "infer", summed over workers.

    Raises:
        OutOfMemoryError: if a batch does not fit the memory.
    """
    forward = _forward(model, plan, clock)
    waiting: deque[tuple[Batch, Future[tuple[Tensor, Tensor | None] | None]]] = deque()
    with _pool(plan) as pool:
        for batch in _batches(strips, tiling, plan.batch_size):
            waiting.append((batch, pool.submit(forward, batch)))
            if len(waiting) > plan.workers:
                yield from _tiles(*waiting.popleft())
        while waiting:
            yield from _tiles(*waiting.popleft())


def _pool(plan: Plan) -> ThreadPoolExecutor:
    """Return the workers; those of a CPU compute with one thread each."""
    if plan.device.type != "cpu":
        return ThreadPoolExecutor(plan.workers)
    return ThreadPoolExecutor(plan.workers, initializer=torch.set_num_threads, initargs=(1,))


def _batches(strips: Iterable[Strip], tiling: Tiling, size: int) -> Iterator[Batch]:
    """Cut strips into tiles and gather `size` of those that have valid pixels."""
    places: list[tuple[int, int, int | None]] = []
    pixels: list[NDArray[np.generic]] = []
    valid: list[NDArray[np.bool_] | None] = []

    def batch() -> Batch:
        ones = np.ones((tiling.y.tile, tiling.x.tile), bool)
        is_partial = any(v is not None for v in valid)
        return Batch(
            places,
            np.stack(pixels) if pixels else None,
            np.stack([ones if v is None else v for v in valid]) if is_partial else None,
        )

    for strip in strips:
        for column in range(tiling.x.count):
            span = slice(tiling.x.start(column), tiling.x.start(column) + tiling.x.tile)
            seen = None if strip.valid is None else strip.valid[:, span]
            if seen is not None and not seen.any():
                places.append((strip.row, column, None))
                continue
            places.append((strip.row, column, len(pixels)))
            pixels.append(strip.pixels[:, span])
            valid.append(None if seen is None or seen.all() else seen)
            if len(pixels) == size:
                yield batch()
                places, pixels, valid = [], [], []
    if places:
        yield batch()


def _forward(
    model: Model, plan: Plan, clock: Clock
) -> Callable[[Batch], tuple[Tensor, Tensor | None] | None]:
    """Return the function that brings a batch to the device and through the net."""
    device, precision = plan.device, plan.precision
    net = fold_batch_norm(model.net).to(device)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    bands = model.card.bands
    mean = torch.tensor([band.mean for band in bands], device=device)
    std = torch.tensor([band.std for band in bands], device=device)

    def upload(array: NDArray[np.generic]) -> Tensor:
        host = torch.from_numpy(array)
        if device.type == "cuda":
            host = host.pin_memory()  # so that the copy need not wait for the kernels before it
        return host.to(device, non_blocking=True)

    def autocast() -> torch.autocast | nullcontext[None]:
        if precision == torch.float32:
            return nullcontext()
        return torch.autocast(device.type, precision)

    @torch.inference_mode()
    def forward(batch: Batch) -> tuple[Tensor, Tensor | None] | None:
        if batch.pixels is None:
            return None
        with clock("infer"), out_of_memory(device, len(batch.pixels)), autocast():
            x = upload(batch.pixels).float()  # (n, tile, tile, bands)
            x = x.sub_(mean).div_(std)
            valid = None
            if batch.valid is not None:
                valid = upload(batch.valid)
                x.masked_fill_(~valid[..., None], 0)  # the mean, after normalisation
            logits = net(x.permute(0, 3, 1, 2))  # channels last as it is
            return logits.float(), valid

    return forward


def _tiles(batch: Batch, result: Future[tuple[Tensor, Tensor | None] | None]) -> Iterator[Tile]:
    """Yield the tiles of an inferred batch."""
    logits, valid = result.result() or (None, None)
    for row, column, i in batch.places:
        if i is None or logits is None:
            yield Tile(row, column, None, None)
        else:
            yield Tile(row, column, logits[i], None if valid is None else valid[i])


class _End(Generic[T]):
    """The last thing in a queue, with the error that ended it, if any."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def ahead(
    items: Generator[T, None, None], clock: Clock, *, empty: str, full: str
) -> Generator[T, None, None]:
    """Yield from `items`, run in a thread of its own that is up to two items ahead.

    An error in `items` is raised here, as itself. When the consumer stops early, so does the
    thread, and `items` is closed.

    Args:
        items: a generator.
        clock: where waiting is counted.
        empty: name for the time that the consumer waits for `items`.
        full: name for the time that `items` wait for the consumer.
    """
    queue: Queue[T | _End[T]] = Queue(1)  # one in the queue, one in the making
    stopped = Event()

    def fill() -> None:
        end = _End[T]()
        try:
            with closing(items):
                for item in items:
                    with clock(full):
                        queue.put(item)
                    if stopped.is_set():
                        return
        except BaseException as error:  # whatever it is, it belongs to the consumer
            end = _End(error)
        queue.put(end)

    thread = Thread(target=fill, daemon=True)
    thread.start()
    try:
        while True:
            with clock(empty):
                item = queue.get()
            if isinstance(item, _End):
                if item.error:
                    raise item.error
                return
            yield item
    finally:
        stopped.set()
        while thread.is_alive():
            try:
                queue.get(timeout=0.05)
            except Empty:
                continue


@contextmanager
def out_of_memory(device: torch.device, batch_size: int) -> Iterator[None]:
    """Turn what torch raises for lack of memory into OutOfMemoryError."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise OutOfMemoryError(
            f"{device} has too little memory for {batch_size} tile(s) at a time: "
            "use a smaller --batch-size, --tile or --threads"
        ) from error


def make_plan(
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    threads: int | None = None,
) -> Plan:
    """Return how to run a net with these wishes.

    What is left open follows a rule, not a timed trial: kernels differ by batch size, so a trial
    would let noise decide about the last bit of a logit. On CPUs one tile per worker and one worker
    per thread; on GPUs a fixed batch. Half precision changes labels, so it is never chosen unasked.

    Args:
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto" (fp32), "fp32", "bf16" or "fp16".
        batch_size: tiles per forward pass.
        threads: CPUs to use, by default all that this process may use.

    Raises:
        OptionError: if there is no such device here.
    """
    where = choose_device(device)
    on_cpu = where.type == "cpu"
    return Plan(
        device=where,
        precision=PRECISIONS["fp32" if precision == "auto" else precision],
        batch_size=batch_size or (1 if on_cpu else GPU_BATCH),
        threads=threads or available_cpus(),
    )


def choose_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the first GPU, or the CPU.

    Raises:
        OptionError: if there is no such device here.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next((kind for kind, here in available.items() if here), "cpu"))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(f"no device is called {name!r}: use cpu, cuda, cuda:N or mps") from error
    if not available.get(device.type, device.type == "cpu"):
        raise OptionError(f"there is no {device.type} device here: use cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise OptionError(f"there is no {name} here: there are {torch.cuda.device_count()} GPUs")
    return device


def available_cpus() -> int:
    """Return how many CPUs this process may use: its affinity and its container's quota."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cpus, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max"
        return cpus
