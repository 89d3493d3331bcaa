"""What a run would do and cost, before it is begun."""

import math
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import rasterio
from rasterio.windows import Window

from fcntile.inference.blend import Rows
from fcntile.inference.job import Walks, union, walks
from fcntile.inference.layout import Layout
from fcntile.inference.tiling import Tiling
from fcntile.raster.area import Area
from fcntile.raster.reader import has_data

TRIAL = 2.0  # seconds
SAMPLES = 200  # tiles whose masks are read


@dataclass(frozen=True)
class Forecast:
    """What a run would do and cost.

    Args:
        width: of the outputs, in px.
        height: of the outputs, in px.
        tile: side in px.
        overlap: in px.
        guard: in px.
        stitch: "cosine", "exact" or "crop".
        tiles: places of the grid, those at the seams of swaths twice.
        empty_tiles: those without a pixel to predict, by samples.
        compute_factor: net pixels per raster pixel, (tile / stride)^2.
        parts: of the run.
        swath: columns handled together.
        memory_mb: of the host, in 1e6 bytes.
        device_memory_mb: of a GPU; 0 on a CPU.
        output_mb: of all outputs, in 1e6 bytes, by what the trial's rows compress to.
        seconds: of the run, by a trial of 2 s.
        model: name on the model's card.
        device: where the net would run.
    """

    width: int
    height: int
    tile: int
    overlap: int
    guard: int
    stitch: str
    tiles: int
    empty_tiles: int
    compute_factor: float
    parts: int
    swath: int
    memory_mb: float
    device_memory_mb: float
    output_mb: float
    seconds: float
    model: str
    device: str


def forecast(
    walker: Walks,
    layout: Layout,
    extent: Window,
    windows: Sequence[Window],
    stitch: str,
    model: str,
) -> Forecast:
    """Return what a run would do and cost, by a short trial in the middle.

    Args:
        walker: that would make the parts.
        layout: how it would go.
        extent: what is to be predicted.
        windows: of the parts.
        stitch: "cosine", "exact" or "crop".
        model: name on its card.
    """
    job, x, need = walker.job, layout.tiling.x, layout.need
    tiles = sum(job.tiling.block(union(walk)).count for walk in walks(windows))
    empty, seen = sample_tiles(walker.raster, job.bands, job.tiling, walker.area, extent)
    around = _around(seen or extent, extent, 8 * x.stride, 4 * x.stride)
    with closing(walker.rows(around)) as rows:
        tried = try_out(rows, lambda: walker.done - walker.skipped)
    pixels = extent.height * extent.width
    size = pixels * sum(o.pixel_bytes for o in walker.outputs) * tried.compression
    packing = pixels * tried.pixel_seconds / job.plan.threads
    return Forecast(
        width=int(extent.width),
        height=int(extent.height),
        tile=job.tiling.tile,
        overlap=job.tiling.overlap,
        guard=job.tiling.guard,
        stitch=stitch,
        tiles=tiles,
        empty_tiles=round(empty * tiles),
        compute_factor=round(job.tiling.compute_factor, 3),
        parts=len(windows),
        swath=layout.columns,
        memory_mb=round(need.total(layout.columns) / 1e6, 1),
        device_memory_mb=round(need.total_on_device(layout.columns) / 1e6, 1),
        output_mb=math.ceil(size / 1e5) / 10,
        seconds=round(tiles * (1 - empty) * tried.tile_seconds + packing, 3),
        model=model,
        device=str(job.plan.device),
    )


def _around(seen: Window, extent: Window, rows: int, columns: int) -> Window:
    """Return a window of so many rows and columns, or fewer, around another, within the extent."""
    spans = []
    for first, size, wanted, (low, high) in zip(
        (seen.row_off, seen.col_off),
        (seen.height, seen.width),
        (rows, columns),
        extent.toranges(),
        strict=True,
    ):
        length = min(wanted, high - low)
        start = min(max(low, int(first + size // 2 - length // 2)), high - length)
        spans.append((start, start + length))
    return Window.from_slices(*spans)


def sample_tiles(
    raster: rasterio.DatasetReader,
    bands: Sequence[int],
    tiling: Tiling,
    area: Area | None,
    extent: Window,
) -> tuple[float, Window | None]:
    """Return the share of tiles without a pixel to predict, and one that has some.

    Args:
        raster: open.
        bands: of it that are read.
        tiling: the grid.
        area: where the mask is wanted; None for everywhere.
        extent: what is to be predicted.

    Returns:
        The share by an even sample, and of those that have some the one in the middle.
    """
    block = tiling.block(extent)
    every = max(1, block.count // SAMPLES)
    places = [divmod(i, len(block.columns)) for i in range(every // 2, block.count, every)]
    windows = [tiling.window(block.rows[row], block.columns[column]) for row, column in places]
    full = [
        window
        for window in windows
        if has_data(raster, bands, window) and (area is None or area.touches(window))
    ]
    return 1 - len(full) / len(windows), full[len(full) // 2] if full else None


@dataclass(frozen=True)
class Trial:
    """What a short run tells.

    Args:
        tile_seconds: for each tile that is inferred.
        pixel_seconds: to compress a pixel of the outputs.
        compression: packed bytes / raw bytes.
    """

    tile_seconds: float
    pixel_seconds: float
    compression: float


def try_out(rows: Iterator[Rows], inferred: Callable[[], int]) -> Trial:
    """Return what the first seconds of a run tell.

    Args:
        rows: (bands, rows, width) of each product; as many are taken as come in the time.
        inferred: returns how many tiles have been inferred so far.
    """
    marks = [(time.perf_counter(), 0)]
    pixels = raw = packed = 0
    packing = 0.0
    for block in rows:
        marks.append((time.perf_counter(), inferred()))
        data = b"".join(np.ascontiguousarray(array).tobytes() for array in block)
        packed += len(zlib.compress(data))
        raw, pixels = raw + len(data), pixels + block[0][0].size
        packing += time.perf_counter() - marks[-1][0]
        if marks[-1][0] - marks[0][0] > TRIAL and len(marks) > 2:
            break
    if len(marks) > 2:  # the first rows wait for the pipeline to fill
        marks = marks[1:]
    (start, before), (stop, after) = marks[0], marks[-1]
    return Trial((stop - start) / max(1, after - before), packing / pixels, packed / raw)
