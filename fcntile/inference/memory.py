"""How much memory a run takes, known before it begins, and what fits a bound.

Host memory is what the process has anyway, plus what each worker's forward pass needs, plus what
grows with the columns that are read at a time: strips of pixels, open junctions, finished rows,
GDAL's blocks. So a bound on memory is a bound on the width of a *swath*.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import rasterio
import torch

from fcntile.errors import OptionError, OutOfMemoryError
from fcntile.inference.devices import Plan
from fcntile.inference.job import OUTPUT_BLOCK
from fcntile.inference.products import Product
from fcntile.inference.tiling import Tiling
from fcntile.models.footprint import Footprint, footprint, weigh
from fcntile.models.model_file import Model
from fcntile.raster.gdal import cached_column_bytes
from fcntile.raster.part_files import BLOCK

SHARE = 0.5  # of the memory that is free, unless the user says how much to take
GPU_SHARE = 0.8  # of its free memory
HALVES = 5  # sides of junctions a worker may hold: of its stretch 2, of a piece 1, to be joined 2
STRIPS, ROWS = 4, 4  # held at a time: read, waiting, cut into tiles; blended, waiting, written
ON_THEIR_WAY = 3  # rows of tiles on a GPU, being completed or copied to the host
KERNELS = 1.5  # of the maps, for what kernels need for themselves
SCATTERED, HOLES = 4, 2  # by_size / maps of FC-DenseNets is 6, of all others at most 2.5
OVERHEAD = 200e6  # bytes: GDAL's smallest block cache, threads, compiled kernels, gaps in heaps
TILES = (8192, 6144, 4096, 3072, 2048, 1536, 1024, 768, 512, 384, 256)  # px that "auto" tries
SWATH = 4096  # px; a bound nobody asked for makes no narrower one
PIXEL_TYPES = {torch.uint8: 1, torch.int16: 2, torch.float32: 4}


@dataclass(frozen=True)
class Need:
    """Memory of a run in bytes.

    Args:
        fixed: whatever the swath.
        column: for each column of a swath.
        device: on a GPU, for one batch; 0 on a CPU.
        device_column: on a GPU, for each column of a swath.
    """

    fixed: float
    column: float
    device: float = 0
    device_column: float = 0

    def total(self, columns: int) -> float:
        """Return the host memory for a swath."""
        return self.fixed + columns * self.column

    def total_on_device(self, columns: int) -> float:
        """Return the memory of the GPU for a swath."""
        return self.device + columns * self.device_column


class Budget:
    """What runs of a model on a raster take.

    Args:
        model: that will run.
        plan: where, and in which precision.
        products: that are wanted.
        raster: open.
        bands: of it that are read.
        shares: whether workers share junctions.
    """

    def __init__(
        self,
        model: Model,
        plan: Plan,
        products: Sequence[Product],
        raster: rasterio.DatasetReader,
        bands: Sequence[int],
        *,
        shares: bool = False,
    ) -> None:
        self._classes = len(model.card.classes)
        self._weights = sum(w.nbytes for w in model.net.state_dict().values())
        self._ready = weigh(model.net, plan.device, plan.precision)
        self._net, self._bands = model.net, len(bands)
        self._pixel = len(bands) * np.dtype(raster.dtypes[bands[0] - 1]).itemsize + 1  # its mask
        self._out = sum(p.bands * PIXEL_TYPES[p.dtype] for p in products)
        self._cached = cached_column_bytes(raster)
        self._junctions = HALVES if shares else 0  # held beside those that are open
        self._resident = resident_bytes()

    @cached_property
    def _footprint(self) -> Footprint:
        return footprint(self._net, self._bands)

    @property
    def scatters(self) -> bool:
        """Whether maps have so many sizes that memory which is kept for them has many holes."""
        return self._footprint.by_size > SCATTERED * self._footprint.maps

    def need(self, tiling: Tiling, plan: Plan) -> Need:
        """Return the memory that a run takes.

        Args:
            tiling: its grid.
            plan: how it runs, on the budget's device and in its precision.
        """
        side, on_cpu = tiling.tile, plan.device.type == "cpu"
        batch = plan.batch_size * tiling.x.length(0) * tiling.y.length(0)
        logits = 4 * self._classes * batch
        maps = KERNELS * self._footprint.maps * batch
        if on_cpu and plan.keeps_memory and self.scatters:
            maps *= HOLES
        fixed = self._resident + OVERHEAD + (plan.workers + 2) * batch * self._pixel
        fixed += STRIPS * side * self._pixel * 2 * side  # tiles that reach beyond a swath
        column = (
            STRIPS * side * self._pixel
            + ROWS * tiling.y.stride * self._out
            + 4 * BLOCK * self._out
            + self._cached
        )
        junction = 4 * self._classes * tiling.y.ramp
        column += self._junctions * junction
        fixed += self._weights  # mapped from the file, and there once they are read
        if not on_cpu:
            device = self._ready.made + maps + 3 * logits
            rows = ON_THEIR_WAY * tiling.y.stride * self._out
            column += ROWS * tiling.y.stride * self._out  # pinned memory comes in powers of two
            return Need(fixed, column, device, (2 if self._junctions else 1) * junction + rows)
        fixed += self._ready.made + (2 * plan.workers + 1) * logits
        fixed += max(self._ready.making, plan.workers * (maps + self._ready.laid_out))
        return Need(fixed, column + junction)


def choose_columns(need: Need, width: int, bound: float) -> int:
    """Return the columns of a swath: all, or as many as fit.

    Args:
        need: of the run.
        width: of the raster.
        bound: bytes of host memory.

    Raises:
        OutOfMemoryError: if not even a narrow swath fits.
    """
    if need.total(width) <= bound:
        return width
    columns = int((bound - need.fixed) // need.column) // OUTPUT_BLOCK * OUTPUT_BLOCK
    if columns < OUTPUT_BLOCK:
        least = math.ceil(need.total(OUTPUT_BLOCK) / 1e7) * 10  # a few MB more or less than then
        raise OutOfMemoryError(
            f"{bound / 1e6:.0f} MB of memory are too little: with these tiles and threads the run "
            f"takes at least {least} MB, so use a smaller --tile, fewer --threads or more "
            "--max-memory"
        )
    return columns


def largest_tile(
    tilings: Callable[[int], Tiling], needs: Callable[[Tiling], Need], step: int, bound: float
) -> int:
    """Return the largest tile that fits a bound and is not much larger than the raster.

    Args:
        tilings: returns the grid for a tile.
        needs: returns the memory for a grid.
        step: of tiles in px: the net's stride.
        bound: bytes of host memory.

    Raises:
        OutOfMemoryError: if none fits.
    """
    fitting = None
    for side in TILES:
        tile = max(1, side // step) * step
        try:
            tiling = tilings(tile)
        except OptionError:  # too small for the net's overlap
            break
        columns = min(tiling.x.size, max(2 * tile, SWATH))
        if needs(tiling).total(columns) <= bound:
            fitting = tile
            if tile < 2 * max(tiling.x.size, tiling.y.size):
                break
    if fitting:
        return fitting
    raise OutOfMemoryError(
        f"no tile for this net fits {bound / 1e6:.0f} MB of memory: use fewer --threads or more "
        "--max-memory"
    )


def free_memory() -> float:
    """Return the bytes of memory that may still be taken: of the machine, and of the container."""
    free = float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024.0 for line in lines if "MemAvailable" in line)
    except (OSError, StopIteration):
        pass
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        free = min(free, limit - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        pass
    return free


def default_bound() -> float:
    """Return the bytes that a run takes at most if the user does not say."""
    return resident_bytes() + SHARE * free_memory()


def fit_device(need: Need, batch_size: int, columns: int, free: float) -> tuple[int, int]:
    """Return as many tiles at a time, and columns of a swath, as a GPU has memory for.

    A swath may take up half of it, as a narrower one costs but little.

    Args:
        need: of the batch.
        batch_size: tiles at a time that are wanted.
        columns: of a swath that are wanted.
        free: bytes that there are.

    >>> fit_device(Need(0, 0, device=16e9, device_column=1e4), 32, 100_000, free=8e9)
    (8, 100000)
    >>> fit_device(Need(0, 0, device=16e9, device_column=1e5), 32, 100_000, free=8e9)
    (4, 31744)
    """
    share = GPU_SHARE * free
    if columns * need.device_column > share / 2:
        columns = int(share / 2 // need.device_column) // OUTPUT_BLOCK * OUTPUT_BLOCK
        columns = max(columns, OUTPUT_BLOCK)
    size = batch_size
    while size > 1 and need.device / batch_size * size > share - columns * need.device_column:
        size //= 2
    return size, columns


def resident_bytes() -> float:
    """Return what this process holds in memory now."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 400e6  # what imports take, where it cannot be asked
    return float(pages * os.sysconf("SC_PAGE_SIZE"))
