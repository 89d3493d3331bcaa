"""Training windows, read and changed by threads while the device computes.

GDAL and torch release the interpreter's lock, so threads are enough. A window depends on the seed
and its number alone: a run that resumes at any step, or is shared by any number of processes, sees
the windows it would have seen.
"""

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from torch import Tensor

from fcntile.raster.classes import UNLABELLED
from fcntile.training.augment import Augmentation
from fcntile.training.dataset import Dataset
from fcntile.training.sampling import Sampler, Split

Sample = tuple[Tensor, Tensor]


class Windows:
    """Training windows by number.

    Args:
        dataset: where they are read.
        sampler: where in it.
        split: blocks held out; they are without data in a training window.
        table: from label values to class positions.
        mean: of each band, in the raster's units.
        std: likewise.
        window: side in px.
        augmentation: how windows are changed.
        seed: of all chance.
    """

    def __init__(
        self,
        dataset: Dataset,
        sampler: Sampler,
        split: Split,
        table: NDArray[np.uint16],
        mean: Sequence[float],
        std: Sequence[float],
        *,
        window: int,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        self.window = window
        self._dataset, self._sampler, self._augmentation = dataset, sampler, augmentation
        self._side, self._held_out = split.side, split.masks(len(dataset.pairs))
        self._table, self._seed = table.astype(np.int64), seed
        self._mean, self._std = np.array(mean, np.float32), np.array(std, np.float32)

    def __getitem__(self, number: int) -> Sample:
        """Return (bands, window, window) float32, normalised, and (window, window) int64 labels."""
        rng = np.random.default_rng((self._seed, number))
        image, row, column = self._sampler.draw(rng)
        side = self._augmentation.draw_side(self.window, rng)
        grid = self._dataset.grids[image]
        top = _place(row - side // 2, side, grid.height)
        left = _place(column - side // 2, side, grid.width)
        pixels, valid, values = self._dataset.read(image, Window(left, top, side, side))
        valid &= ~self._hidden(image, top, left, side)
        labels = np.where(valid, self._table[values], UNLABELLED)
        x = normalise(pixels, valid, self._mean, self._std)
        return self._augmentation(
            x, torch.from_numpy(valid), torch.from_numpy(labels), self.window, rng
        )

    def _hidden(self, image: int, top: int, left: int, side: int) -> NDArray[np.bool_]:
        """Return which pixels of a window are held out for validation."""
        mask = self._held_out[image]
        if mask is None:
            return np.zeros((side, side), bool)
        rows, columns = (np.arange(start, start + side) // self._side for start in (top, left))
        inside = np.outer(
            (rows >= 0) & (rows < mask.shape[0]), (columns >= 0) & (columns < mask.shape[1])
        )
        rows, columns = rows.clip(0, mask.shape[0] - 1), columns.clip(0, mask.shape[1] - 1)
        return mask[rows[:, None], columns] & inside


def _place(start: int, side: int, size: int) -> int:
    """Return a window's start such that it lies in the raster; centred if it is too large."""
    return (size - side) // 2 if side >= size else min(max(start, 0), size - side)


def normalise(
    pixels: NDArray[np.generic],
    valid: NDArray[np.bool_],
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
) -> Tensor:
    """Return (H, W, bands) pixels as a net wants them: (bands, H, W) float32, 0 without data."""
    x = pixels.astype(np.float32)
    if not valid.all():
        x[~valid] = mean  # first: NaN and infinity would survive arithmetic
    rows = x.reshape(len(x), -1)  # numpy is several times faster on long rows than on few bands
    rows -= np.tile(mean, x.shape[1])
    rows /= np.tile(std, x.shape[1])
    return torch.from_numpy(x).permute(2, 0, 1)


def load(
    windows: Windows, batches: Iterable[Sequence[int]], threads: int, *, pin: bool = False
) -> Generator[Sample, None, None]:
    """Yield batches of windows, read ahead by threads.

    Args:
        windows: by number.
        batches: the numbers of each batch.
        threads: that read.
        pin: keep batches where a GPU can fetch them while it computes.

    Yields:
        (N, bands, window, window) float32 in channels-last order, (N, window, window) int64
    """
    waiting: deque[list[Future[Sample]]] = deque()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for numbers in batches:
                waiting.append([pool.submit(windows.__getitem__, n) for n in numbers])
                if len(waiting) > 2:
                    yield _stack(waiting.popleft(), pin=pin)
            while waiting:
                yield _stack(waiting.popleft(), pin=pin)
        finally:
            pool.shutdown(cancel_futures=True)


def _stack(futures: Sequence[Future[Sample]], *, pin: bool) -> Sample:
    samples = [future.result() for future in futures]
    x = torch.stack([x for x, _ in samples]).contiguous(memory_format=torch.channels_last)
    y = torch.stack([y for _, y in samples])
    return (x.pin_memory(), y.pin_memory()) if pin else (x, y)
