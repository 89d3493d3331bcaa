"""Cut strips into tiles, gather them in batches, and run the net on them.

On a CPU the net runs in several workers with one torch thread each, each on its own tiles: that
beats one worker with many threads, and a tile's logits do not depend on how many workers there are.
Batches always have the same shape, so that logits do not depend on where a walk begins either.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fcntile.errors import OutOfMemoryError
from fcntile.inference.devices import Plan, exact_fp32, out_of_memory, threads_of_torch
from fcntile.inference.heap import give_back_freed_memory, return_freed_maps
from fcntile.inference.stages import Clock
from fcntile.inference.tiling import Block, Tiling
from fcntile.inference.transfer import Transfer
from fcntile.models.layers import prepare
from fcntile.models.model_file import Model
from fcntile.raster.reader import Strip

log = logging.getLogger(__name__)

Inferred = tuple[Tensor, Tensor | None]  # logits, and which pixels the mask is to have


@dataclass(frozen=True)
class Tile:
    """One place of the grid, and what the net says about it.

    Args:
        row: index of its row of tiles.
        column: index in that row.
        logits: (classes, rows, columns) float32 on the device; None if no pixel is wanted.
        wanted: (rows, columns) bool on the device, which pixels the mask is to have; None if all.
    """

    row: int
    column: int
    logits: Tensor | None
    wanted: Tensor | None


@dataclass(frozen=True)
class Batch:
    """Tiles in row-major order, and the pixels of those that have any to be predicted.

    Args:
        places: (row, column, index into `pixels` or None) of each tile.
        pixels: (n, rows, columns, bands) in the raster's dtype; None if there is none.
        valid: (n, rows, columns) bool, which have data; None if every pixel has.
        wanted: (n, rows, columns) bool, which the mask is to have; None if those that have data.
    """

    places: list[tuple[int, int, int | None]]
    pixels: NDArray[np.generic] | None
    valid: NDArray[np.bool_] | None
    wanted: NDArray[np.bool_] | None


class Engine:
    """A net on its device, ready to run.

    Args:
        model: the net and its card.
        plan: where and how.
        tiling: the grid of the tiles.
        clock: counts the seconds of all stages; here of "infer", summed over workers.

    Raises:
        OutOfMemoryError: if the net does not fit the device.
    """

    def __init__(self, model: Model, plan: Plan, tiling: Tiling, clock: Clock) -> None:
        self.model, self.plan, self.clock = model, plan, clock
        self._tiling = tiling
        self._size = plan.batch_size  # tiles in one forward pass; halved if memory is short
        exact_fp32(plan.device)
        if not plan.keeps_memory:
            return_freed_maps()
        self._pool, self._transfer = _pool(plan), Transfer(plan.device)
        self._stride = model.net.stride
        card = model.card
        rows, columns = tiling.y.length(0), tiling.x.length(0)  # no tile is larger
        with out_of_memory(plan.device, "the net", "use a smaller --tile, or another --device"):
            classes = len(card.classes)
            with threads_of_torch(plan.threads):
                self._net = prepare(model.net, plan.device, plan.precision, classes)
            # a value per band and column: a row of a tile is one run of numbers, faster on CPUs
            self._mean = torch.tensor(card.means * columns, device=plan.device)
            self._std = torch.tensor(card.stds * columns, device=plan.device)
            if plan.device.type == "cpu" and plan.precision == torch.bfloat16:
                # weights are laid out for this tile, wherever a walk begins
                first = torch.zeros(1, len(card.bands), rows, columns)
                self._pool.submit(self._run, first).result()

    def infer(self, strips: Iterable[Strip], block: Block) -> Iterator[Tile]:
        """Yield every tile of a block in row-major order, with its logits.

        Args:
            strips: the raster, one strip for each row of tiles, as wide as the block.
            block: which tiles.

        Raises:
            OutOfMemoryError: if not even one tile fits the memory.
        """
        if self.plan.device.type == "cpu":
            torch.set_num_threads(1)  # of this thread: what it computes shares CPUs with workers
        waiting: deque[tuple[Batch, Future[Inferred | None]]] = deque()
        try:
            for batch in _batches(strips, self._tiling, block, self.plan.batch_size):
                waiting.append((batch, self._pool.submit(self._forward, batch)))
                if len(waiting) > self.plan.workers:
                    yield from _tiles(*waiting.popleft())
            while waiting:
                yield from _tiles(*waiting.popleft())
        finally:
            for _, given_up in waiting:  # at the end of a run that is interrupted
                given_up.cancel()

    @torch.inference_mode()
    def _forward(self, batch: Batch) -> Inferred | None:
        """Bring a batch to the device and through the net; None if it has no pixels."""
        if batch.pixels is None:
            return None
        count, side = len(batch.pixels), max(batch.pixels.shape[1:3])
        what = f"{self.plan.workers} tile(s) of {side} px at a time"
        half = max(1, side // 2 // self._stride) * self._stride
        advice = f"with --tile {half} they take a quarter"
        if self.plan.workers > 1:
            advice += ", with --threads 1 fewer are at work"
        while True:
            size = self._size
            try:
                with self.clock("infer"), out_of_memory(self.plan.device, what, advice):
                    parts = [self._pass(batch, i, size) for i in range(0, count, size)]
                    return _joined([p[0] for p in parts]), _joined_masks([p[1] for p in parts])
            except OutOfMemoryError:
                if size == 1:
                    raise
            self._shrink(size)  # once the error has let go of the maps that it came up with

    def _shrink(self, size: int) -> None:
        """Halve the tiles of a forward pass, if no other worker has done so already."""
        if self._size == size:
            self._size = size // 2
            log.warning(
                "%s has too little memory for %d tiles at a time: going on with %d",
                self.plan.device,
                size,
                self._size,
            )
        if self.plan.device.type == "cuda":
            torch.cuda.empty_cache()
        give_back_freed_memory()  # to oneDNN's kernels, which are not in the heap

    def _pass(self, batch: Batch, first: int, size: int) -> Inferred:
        """Return the logits of some tiles of a batch, and which pixels the mask is to have."""
        assert batch.pixels is not None
        x = self._transfer.to_device(_filled(batch.pixels[first : first + size], size))
        # a copy always: for lack of memory the same pixels may be normalised once more
        x = x.to(torch.float32, copy=True)
        count = min(size, len(batch.pixels) - first)
        flat = x.view(*x.shape[:2], -1)  # (n, rows, columns * bands)
        numbers = flat.shape[2]
        flat.sub_(self._mean[:numbers]).div_(self._std[:numbers])
        valid = wanted = None
        if batch.valid is not None:
            valid = wanted = self._transfer.to_device(batch.valid[first : first + size])
            x[:count].masked_fill_(~valid[..., None], 0)  # the mean, after normalisation
        if batch.wanted is not None:
            wanted = self._transfer.to_device(batch.wanted[first : first + size])
        logits = self._run(x.permute(0, 3, 1, 2))  # channels last as it is
        return logits[:count].float().contiguous(), wanted  # (n, classes, rows, columns)

    @torch.inference_mode()
    def _run(self, x: Tensor) -> Tensor:
        """Return the logits of normalised tiles in the precision of the plan."""
        with self._autocast():
            logits: Tensor = self._net(x)
        return logits

    def _autocast(self) -> torch.autocast | nullcontext[None]:
        if self.plan.precision == torch.float32:
            return nullcontext()
        return torch.autocast(self.plan.device.type, self.plan.precision)


def _pool(plan: Plan) -> ThreadPoolExecutor:
    """Return the workers; those of a CPU compute with one thread each."""
    if plan.device.type != "cpu":
        return ThreadPoolExecutor(plan.workers)
    return ThreadPoolExecutor(plan.workers, initializer=torch.set_num_threads, initargs=(1,))


def _batches(strips: Iterable[Strip], tiling: Tiling, block: Block, size: int) -> Iterator[Batch]:
    """Cut strips into tiles and gather `size` of those that have pixels to be predicted."""
    places: list[tuple[int, int, int | None]] = []
    pixels: NDArray[np.generic] | None = None
    valid: list[NDArray[np.bool_] | None] = []
    wanted: list[NDArray[np.bool_] | None] = []

    def batch() -> Batch:
        if pixels is None:
            return Batch(places, None, None, None)
        return Batch(places, pixels[: len(valid)], _stacked(valid), _stacked(wanted))

    left = tiling.x.start(block.columns[0])
    for row, strip in zip(block.rows, strips, strict=True):
        for column in block.columns:
            first = tiling.x.start(column) - left
            span = slice(first, tiling.x.stop(column) - left)
            has_data = None if strip.valid is None else strip.valid[:, span]
            is_wanted = has_data
            if strip.wanted is not None:
                here = strip.wanted[:, span]
                is_wanted = here if has_data is None else here & has_data
            if is_wanted is not None and not is_wanted.any():
                places.append((row, column, None))
                continue
            tile = strip.pixels[:, span]
            if pixels is None:
                pixels = np.empty((size, *tile.shape), tile.dtype)
            places.append((row, column, len(valid)))
            pixels[len(valid)] = tile  # copied, as a view would keep the strip
            valid.append(None if has_data is None or has_data.all() else has_data.copy())
            if strip.wanted is not None:
                wanted.append(is_wanted)
            if len(valid) == size:
                yield batch()
                places, pixels, valid, wanted = [], None, [], []
        if places and pixels is None:  # nothing to wait for: rows without data are finished at once
            yield batch()
            places = []
    if places:
        yield batch()


def _stacked(masks: list[NDArray[np.bool_] | None]) -> NDArray[np.bool_] | None:
    """Return masks as one array, None being all true; None if all are."""
    given = next((m for m in masks if m is not None), None)
    if given is None:
        return None
    return np.stack([np.ones_like(given) if m is None else m for m in masks])


def _filled(pixels: NDArray[np.generic], size: int) -> NDArray[np.generic]:
    """Return a batch of `size` tiles: kernels, and so logits, may differ by the batch's shape."""
    if len(pixels) == size:
        return pixels
    return np.concatenate([pixels, np.zeros((size - len(pixels), *pixels.shape[1:]), pixels.dtype)])


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _joined_masks(parts: list[Tensor | None]) -> Tensor | None:
    given = [p for p in parts if p is not None]
    return _joined(given) if given else None


def _tiles(batch: Batch, result: Future[Inferred | None]) -> Iterator[Tile]:
    """Yield the tiles of an inferred batch."""
    logits, wanted = result.result() or (None, None)
    for row, column, i in batch.places:
        if i is None or logits is None:
            yield Tile(row, column, None, None)
        else:
            yield Tile(row, column, logits[i], None if wanted is None else wanted[i])
