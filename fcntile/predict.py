"""Raster and model in, mask out: the path of a pixel."""

import logging
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import rasterio
from rasterio.windows import Window

from fcntile.errors import OptionError, check_choice
from fcntile.files import check_output
from fcntile.inference.blend import Halves, Rows, blend, empty_rows
from fcntile.inference.checks import (
    choose_bands,
    output_paths,
    remark_on_resolution,
    remark_on_tile,
)
from fcntile.inference.choices import DRIVERS, STITCHES
from fcntile.inference.cluster.client import have_parts_made
from fcntile.inference.cluster.crew import choose_crew
from fcntile.inference.cluster.walk import Order
from fcntile.inference.devices import available_cpus, make_plan, peak_rss, threads_of_torch
from fcntile.inference.engine import Engine, Tile
from fcntile.inference.forecast import Forecast, forecast
from fcntile.inference.heap import keep_freed_memory
from fcntile.inference.job import Job, Tally, cut, parse_threshold, part_rows, union, walks
from fcntile.inference.layout import plan_layout
from fcntile.inference.products import make_products
from fcntile.inference.provenance import facts_of, outputs_of
from fcntile.inference.resume import resumable
from fcntile.inference.stages import Clock, Tap, ahead
from fcntile.models.model_file import load_model
from fcntile.raster.area import Area, bounds_window
from fcntile.raster.assembly import Assembly
from fcntile.raster.creation import check_outputs
from fcntile.raster.gdal import all_files, bounded_cache, cache_bytes, open_raster
from fcntile.raster.identity import check_unchanged, identify, on_disk
from fcntile.raster.outputs import Output, class_values
from fcntile.raster.part_files import PartWriter
from fcntile.raster.parts import Parts, earlier_facts, open_parts, plan_parts
from fcntile.raster.reader import read_strips

log = logging.getLogger(__name__)

STAGES = ("read", "infer", "blend", "write", "wait_read", "wait_infer", "wait_write", "wait_rows")


class Walker:
    """Makes parts: walks down the raster, from one part to the next without a stop.

    Args:
        job: what to make.
        engine: the model that it names, ready to run.
        raster: that it names, open.
        outputs: files that the parts are of.
        progress: called with the number of tiles done and of all tiles.
    """

    def __init__(
        self,
        job: Job,
        engine: Engine,
        raster: rasterio.DatasetReader,
        outputs: Sequence[Output],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.total = self.done = self.skipped = 0  # tiles
        self.halves: Halves | None = None  # of junctions that workers share
        self.job, self.raster, self.outputs = job, raster, outputs
        self.area = Area(job.area, raster) if job.area else None
        self._engine, self._clock, self._progress = engine, engine.clock, progress

    def rows(self, window: Window) -> Generator[Rows, None, None]:
        """Yield what is wanted of a window from top to bottom: the path of a pixel."""
        job, clock, tiling = self.job, self._clock, self.job.tiling
        block = tiling.block(window)
        read = read_strips(
            self.raster,
            job.bands,
            [(tiling.y.start(row), tiling.y.stop(row)) for row in block.rows],
            tiling.x.span(block.columns),
            last=tiling.x.start(block.columns[-1]),
            area=self.area,
        )
        strips = ahead(clock.timed("read", read), clock, empty="wait_read", full="wait_infer")
        tiles = Tap(self._engine.infer(strips, block), self._count)
        device, halves = job.plan.device, self.halves
        blended = blend(tiles, tiling, block, job.products, device, clock, job.threshold, halves)
        rows = ahead(blended, clock, empty="wait_rows", full="wait_write", stop=tiles.close)
        with closing(strips), closing(rows):
            for arriving in rows:
                with clock("wait_rows"):
                    arrived = arriving()
                yield arrived

    def parts(
        self, folder: Path, windows: Sequence[Window]
    ) -> Generator[tuple[Window, list[Path]], None, None]:
        """Yield finished parts: their window, and their files in a folder."""
        routes = [
            (is_wanted, list(route))
            for walk in walks(windows)
            for is_wanted, route in groupby(walk, self._is_wanted)
        ]
        self.total += sum(
            self.job.tiling.block(union(route)).count for is_wanted, route in routes if is_wanted
        )
        for is_wanted, route in routes:
            make = self.rows if is_wanted else partial(empty_rows, self.job.products)
            with closing(make(union(route))) as rows:
                pieces = cut(rows, [int(window.height) for window in route])
                for window in route:
                    writer = PartWriter(folder, self.outputs, window)
                    while writer.rows < window.height:
                        piece = next(pieces)
                        with self._clock("write"):
                            piece[0] = class_values(piece[0], self._engine.model.card.values)
                            writer.write(piece)
                    with self._clock("write"):
                        files = writer.finish()
                    self._engine.model.check_unchanged()
                    yield window, files

    def make(self, parts: Parts, windows: Sequence[Window], signals: Sequence[int]) -> Tally:
        """Make parts of a run; the one in the making when a signal comes is the last.

        Raises:
            KeyboardInterrupt: after a signal.
        """
        with closing(self.parts(parts.folder, windows)) as made:
            for _, files in made:
                parts.add(files)
                if signals:
                    raise KeyboardInterrupt
        return Tally(self.total, self.skipped)

    def _is_wanted(self, window: Window) -> bool:
        return self.area is None or self.area.touches(window)

    def _count(self, tile: Tile) -> None:
        self.done += 1
        self.skipped += tile.logits is None
        self._progress(self.done, self.total)


@dataclass(frozen=True)
class Summary:
    """What a prediction did.

    Args:
        output: path of the mask.
        width: pixels.
        height: pixels.
        tile: side in px.
        compute_factor: net pixels per raster pixel, (tile / stride)^2.
        tiles: places of the grid that this run went to, some of them twice.
        skipped_tiles: those without a pixel to predict, never inferred.
        parts: of the run.
        resumed_parts: those that an earlier run had finished.
        seconds: wall time of the whole run.
        megapixels_per_second: pixels of the mask / 1e6 / seconds.
        stage_seconds: busy seconds of "read", "infer" (summed over workers), "blend", "write";
            idle seconds of inference, waiting for strips ("wait_read") or the writer
            ("wait_write"), of the reader ("wait_infer") and of the writer ("wait_rows").
        peak_rss_mb: largest memory of the process so far, in 1e6 bytes.
        model: name on the model's card.
        device: where the net ran.
    """

    output: str
    width: int
    height: int
    tile: int
    compute_factor: float
    tiles: int
    skipped_tiles: int
    parts: int
    resumed_parts: int
    seconds: float
    megapixels_per_second: float
    stage_seconds: dict[str, float]
    peak_rss_mb: float
    model: str
    device: str


def predict(
    input: str | Path,
    output: str | Path,
    *,
    model: str | Path = "buildings",
    tile: int | str | None = None,
    overlap: int | str | None = None,
    stitch: str = "cosine",
    aoi: str | Path | None = None,
    bounds: Sequence[float] | None = None,
    products: Mapping[str, str | Path] | None = None,
    dtype: str = "uint8",
    threshold: str | float | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    bidx: Sequence[int] | None = None,
    threads: int | None = None,
    max_memory: float | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    driver: str = "COG",
    creation_options: Mapping[str, str] | None = None,
    overwrite: bool = False,
    restart: bool = False,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Summary | Forecast:
    """Write the mask of a raster: the class value of every pixel, nodata where it has no data.

    The mask is uint8 with nodata 255, or uint16 with 65535 if a class value is above 254. Finished
    parts are kept in a folder beside it until it is whole: after an error, a signal or a power cut
    the same call goes on from there, and makes the same bytes.

    Args:
        input: whatever rasterio opens: a file, `/vsi...`, a URL, a file in an archive.
        output: path of the mask, a GeoTIFF.
        model: a model file, or the name of a bundled model.
        tile: side of a tile in pixels, a multiple of the net's stride; "auto" is the largest that
            fits the memory. By default the card's; for exact stitching "auto".
        overlap: pixels that neighbours share, or a share such as "25%"; by default the card's, or
            twice the net's halo if that is less.
        stitch: "cosine" blends tiles; "exact" crops them by what the net sees, which gives the
            logits of the untiled raster; "crop" crops them in the middle of the overlap.
        aoi: vector file of polygons; outside of them the mask has no data.
        bounds: left, bottom, right, top in the raster's CRS, to which outputs are clipped.
        products: paths of further outputs by name: "probabilities", "confidence", "entropy",
            "logits".
        dtype: of these: "uint8" (1 to 255, 0 is nodata; not logits), "float16" or "float32".
        threshold: probability from which a pixel is of a class, as 0.3 (the second of two) or
            "roof=0.3".
        batch_size: tiles per forward pass; by default 1 on CPUs and 8 on GPUs.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto" (fp32), "fp32", "bf16" or "fp16".
        bidx: bands for the net's channels, from 1; by default every band but alpha.
        threads: CPUs to use, by default all that this process may use.
        max_memory: bytes that the process may hold; by default its own and half of what is free.
        workers: processes of this machine that make the parts, with these threads and memory
            together; on GPUs one each. By default this process makes them.
        scheduler: address of a Dask scheduler whose workers make the parts.
        driver: "COG" or "GTiff".
        creation_options: GDAL creation options, over compress=deflate and 512 px blocks.
        overwrite: replace existing outputs.
        restart: forget the parts of an earlier run.
        dry_run: write nothing, and return a forecast.
        progress: called with the number of tiles done and of all tiles.

    Raises:
        OptionError: if an option cannot be used with this net or machine.
        InputError: if the raster cannot be read or does not suit the model.
        ModelError: if the model cannot be used.
        OutOfMemoryError: if a tile does not fit the device.
        OutputError: if an output exists or cannot be written, or parts are of another run.
        Stopped: after SIGINT or SIGTERM, if there are finished parts to go on from.
    """
    start, clock = time.perf_counter(), Clock()
    keep_freed_memory()
    check_choice("--stitch", stitch, STITCHES)
    check_choice("--format", driver, DRIVERS)
    paths = output_paths(output, products or {}, dtype)
    if aoi == "":
        raise OptionError("the area of interest is a file without a name: leave it out, or name it")
    input, aoi = str(input), str(aoi) if aoi else None
    crew = None if dry_run else choose_crew(workers, scheduler)
    plan = (crew.make_plan if crew else make_plan)(device, precision, batch_size, threads)
    known = {} if restart else earlier_facts(Path(output))
    for path in paths.values():
        check_output(path, overwrite=overwrite or dry_run or bool(known))
    loaded = load_model(model)
    card = loaded.card
    with ExitStack() as stack:
        stack.enter_context(threads_of_torch(1))  # the engine's workers have the CPUs
        raster = stack.enter_context(open_raster(input, threads=plan.threads))
        bands = choose_bands(raster, card, bidx)
        remark_on_resolution(raster, card)
        extent = Window(0, 0, raster.width, raster.height)
        extent = bounds_window(bounds, raster) if bounds else extent
        wanted = make_products(list(paths)[1:], len(card.classes), dtype)
        layout = plan_layout(
            loaded,
            raster,
            bands,
            wanted,
            plan,
            stitch=stitch,
            tile=tile,
            overlap=overlap,
            earlier=known if known.get("stitch") == stitch else {},
            bound=crew.memory(max_memory) if crew else max_memory,
            is_asked=max_memory is not None,
            width=int(extent.width),
            fixed_batch=bool(batch_size),
            is_local=scheduler is None,
            shares=crew is not None and not aoi,
        )
        remark_on_tile(loaded, layout.tiling.tile)
        job = Job(
            input=input,
            model=str(model),
            plan=layout.plan,
            bands=tuple(bands),
            tiling=layout.tiling,
            products=tuple(wanted),
            threshold=parse_threshold(threshold, card),
            area=aoi,
        )
        log.info("%s on %s", card.name, layout)
        stack.enter_context(bounded_cache(raster, min(layout.columns, raster.width)))
        facts = facts_of(job, loaded, stitch, extent) | {"raster": identify(raster)}
        outputs = outputs_of(job, loaded, paths, facts)
        inputs: dict[str, Sequence[str | Path]] = {
            "the input, or a part of it": [on_disk(name) or name for name in all_files(raster)],
            "the model": [loaded.file[0]] if loaded.file else [],
            "the area of interest": [aoi] if aoi else [],
        }
        check_outputs(outputs, inputs, driver, creation_options)
        windows = plan_parts(extent, part_rows(layout.columns), layout.columns)
        if dry_run:
            if workers or scheduler:
                log.warning("this is the forecast for one process here, without any workers")
            walker = Walker(job, Engine(loaded, job.plan, job.tiling, clock), raster, outputs)
            return forecast(walker, layout, extent, windows, stitch, card.name)
        parts = stack.enter_context(open_parts(outputs, facts, windows, restart=restart))
        missing = parts.missing()
        resumed = len(parts.windows) - len(missing)
        for path in paths.values():  # those that an earlier run was about to make may be there
            check_output(path, overwrite=overwrite or not missing)
        assembly = Assembly(
            parts,
            raster,
            extent,
            driver=driver,
            creation_options=creation_options,
            threads=threads or available_cpus(),
        )
        with resumable(parts) as signals:
            if crew:
                cache = cache_bytes(raster, min(layout.columns, raster.width))
                order = Order(Walker, job, tuple(outputs), facts, cache)
                tally = have_parts_made(crew, order, parts, signals, clock, progress)
            else:
                engine = Engine(loaded, job.plan, job.tiling, clock)
                walker = Walker(job, engine, raster, outputs, progress)
                tally = walker.make(parts, missing, signals)
            check_unchanged(raster, facts["raster"])
            for path in paths.values():  # hours may have passed
                check_output(path, overwrite=overwrite or not missing)
            with clock("write"):
                assembly.finish()
    seconds = time.perf_counter() - start
    pixels = extent.height * extent.width
    return Summary(
        output=str(output),
        width=int(extent.width),
        height=int(extent.height),
        tile=job.tiling.tile,
        compute_factor=round(job.tiling.compute_factor, 3),
        tiles=tally.total,
        skipped_tiles=tally.skipped,
        parts=len(parts.windows),
        resumed_parts=resumed,
        seconds=round(seconds, 3),
        megapixels_per_second=round(pixels / 1e6 / seconds, 3),
        stage_seconds={stage: round(clock.seconds[stage], 3) for stage in STAGES},
        peak_rss_mb=round(peak_rss() / 1e6, 1),
        model=card.name,
        device=str(plan.device),
    )
