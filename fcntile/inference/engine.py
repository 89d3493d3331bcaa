"""Cut strips into tiles, gather them in batches, and run the net on them.

On a CPU the net runs in several workers with one torch thread each, each on its own tiles: that
beats one worker with many threads, and a tile's logits do not depend on how many workers there are.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fcntile.errors import OutOfMemoryError
from fcntile.inference.devices import Plan, exact_fp32, keep_freed_memory
from fcntile.inference.stages import Clock
from fcntile.inference.tiling import Tiling
from fcntile.models.layers import fold_batch_norm
from fcntile.models.model_file import Model
from fcntile.raster.reader import Strip


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
    with out_of_memory(plan.device, plan.batch_size):
        forward = _forward(model, tiling.x.tile, plan, clock)
    if plan.device.type == "cpu":
        keep_freed_memory()
        torch.set_num_threads(1)  # of this thread: what it computes shares the CPUs with workers
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
            pixels.append(strip.pixels[:, span].copy())  # a view would keep the strip
            valid.append(None if seen is None or seen.all() else seen.copy())
            if len(pixels) == size:
                yield batch()
                places, pixels, valid = [], [], []
        if places and not pixels:  # nothing to wait for: rows without data are finished at once
            yield batch()
            places = []
    if places:
        yield batch()


def _forward(
    model: Model, tile: int, plan: Plan, clock: Clock
) -> Callable[[Batch], tuple[Tensor, Tensor | None] | None]:
    """Return the function that brings a batch to the device and through the net."""
    device, precision = plan.device, plan.precision
    exact_fp32(device)
    net = fold_batch_norm(model.net).to(device)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    bands = model.card.bands
    # one value per band and column: a row of a tile is one run of numbers, far faster on CPUs
    mean = torch.tensor([band.mean for band in bands] * tile, device=device)
    std = torch.tensor([band.std for band in bands] * tile, device=device)

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
            x.view(*x.shape[:2], -1).sub_(mean).div_(std)
            valid = None
            if batch.valid is not None:
                valid = upload(batch.valid)
                x.masked_fill_(~valid[..., None], 0)  # the mean, after normalisation
            logits = net(x.permute(0, 3, 1, 2))  # channels last as it is
            return logits.float().contiguous(), valid  # (n, classes, tile, tile), class by class

    return forward


def _tiles(batch: Batch, result: Future[tuple[Tensor, Tensor | None] | None]) -> Iterator[Tile]:
    """Yield the tiles of an inferred batch."""
    logits, valid = result.result() or (None, None)
    for row, column, i in batch.places:
        if i is None or logits is None:
            yield Tile(row, column, None, None)
        else:
            yield Tile(row, column, logits[i], None if valid is None else valid[i])


@contextmanager
def out_of_memory(device: torch.device, batch_size: int) -> Iterator[None]:
    """Turn what torch raises for lack of memory into OutOfMemoryError."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        said = str(error)
        lacks = "out of memory" in said or "can't allocate memory" in said
        if isinstance(error, RuntimeError) and not lacks:
            raise
        raise OutOfMemoryError(
            f"{device} has too little memory for {batch_size} tile(s) at a time: "
            "use a smaller --batch-size, --tile or --threads"
        ) from error
