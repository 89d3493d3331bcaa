"""Raster and model in, mask out: the path of a pixel."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import fcntile
from fcntile.inference.blend import blend, class_values
from fcntile.inference.checks import choose_bands, remark_on_resolution, remark_on_tile
from fcntile.inference.devices import Plan, make_plan, peak_rss
from fcntile.inference.engine import Tile, infer
from fcntile.inference.stages import Clock, ahead
from fcntile.inference.tiling import Tiling, plan_tiling
from fcntile.models.model_file import Model, load_model
from fcntile.raster.gdal import open_raster
from fcntile.raster.reader import read_strips
from fcntile.raster.writer import check_output, open_mask

log = logging.getLogger(__name__)

STAGES = ("read", "infer", "blend", "write", "wait_read", "wait_infer", "wait_write", "wait_rows")


@dataclass(frozen=True)
class Summary:
    """What a prediction did.

    Args:
        output: path of the mask.
        width: pixels.
        height: pixels.
        tiles: places of the grid.
        skipped_tiles: those without a valid pixel, never inferred.
        seconds: wall time of the whole run.
        megapixels_per_second: raster pixels / 1e6 / seconds.
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
    tiles: int
    skipped_tiles: int
    seconds: float
    megapixels_per_second: float
    stage_seconds: dict[str, float]
    peak_rss_mb: float
    model: str
    device: str


def predict(
    input: str,
    output: str | Path,
    *,
    model: str | Path = "buildings",
    tile: int | None = None,
    overlap: int | str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    bidx: Sequence[int] | None = None,
    threads: int | None = None,
    driver: str = "COG",
    creation_options: Mapping[str, str] | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Summary:
    """Write the mask of a raster: the class value of every pixel, nodata where it has no data.

    The mask is uint8 with nodata 255, or uint16 with 65535 if a class value is above 254. Memory is
    bounded by the raster's width, not its height.

    Args:
        input: whatever rasterio opens: a file, `/vsi...`, a URL, a file in an archive.
        output: path of the mask, a GeoTIFF.
        model: a model file, or the name of a bundled model.
        tile: side of a tile in pixels, a multiple of the net's stride; by default the card's.
        overlap: pixels that neighbours share, or a share such as "25%"; by default the card's.
        batch_size: tiles per forward pass; by default 1 on CPUs and 8 on GPUs.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto" (fp32), "fp32", "bf16" or "fp16".
        bidx: bands for the net's channels, from 1; by default every band but alpha.
        threads: CPUs to use, by default all that this process may use.
        driver: "COG" or "GTiff".
        creation_options: GDAL creation options, over compress=deflate and 512 px blocks.
        overwrite: replace an existing output.
        progress: called with the number of tiles done and of all tiles.

    Raises:
        OptionError: if an option cannot be used with this net or machine.
        InputError: if the raster cannot be read or does not suit the model.
        ModelError: if the model cannot be used.
        OutOfMemoryError: if a batch of tiles does not fit the device.
        OutputError: if the output exists or cannot be written.
    """
    start, clock, output = time.perf_counter(), Clock(), Path(output)
    plan = make_plan(device, precision, batch_size, threads)
    check_output(output, overwrite=overwrite)
    loaded = load_model(model)
    net, card = loaded.net, loaded.card
    with open_raster(input, threads=plan.threads) as raster:
        height, width = raster.shape
        bands = choose_bands(raster, card, bidx)
        remark_on_resolution(raster, card)
        tile, overlap = tile or card.tile, card.overlap if overlap is None else overlap
        remark_on_tile(loaded, tile)
        tiling = plan_tiling(height, width, tile, overlap, net.stride, net.halo, net.size)
        log.info("%s, %s, %s", card.name, tiling, plan)
        tally = Tally(tiling.count, progress)
        read = read_strips(
            raster,
            bands,
            tile=tiling.y.tile,
            stride=tiling.y.stride,
            count=tiling.y.count,
            width=tiling.x.padded,
        )
        strips = ahead(clock.timed("read", read), clock, empty="wait_read", full="wait_infer")
        blended = blend(
            tally.count(infer(loaded, strips, tiling, plan, clock)),
            tiling,
            len(card.classes),
            plan.device,
            clock,
        )
        rows = ahead(blended, clock, empty="wait_rows", full="wait_write")
        mask = open_mask(
            output,
            like=raster,
            classes=[(v, c.name, c.rgb) for v, c in zip(card.values, card.classes, strict=True)],
            tags=_provenance(loaded, plan, tiling, bands),
            driver=driver,
            creation_options=creation_options,
            threads=plan.threads,
        )
        with mask as writer, closing(strips), closing(rows), tally:
            for block in rows:
                with clock("write"):
                    writer.write(class_values(block, card.values))
            with clock("write"):
                writer.finish()
    seconds = time.perf_counter() - start
    return Summary(
        output=str(output),
        width=width,
        height=height,
        tiles=tally.total,
        skipped_tiles=tally.skipped,
        seconds=round(seconds, 3),
        megapixels_per_second=round(height * width / 1e6 / seconds, 3),
        stage_seconds={stage: round(clock.seconds[stage], 3) for stage in STAGES},
        peak_rss_mb=round(peak_rss() / 1e6, 1),
        model=card.name,
        device=str(plan.device),
    )


class Tally:
    """Counts tiles as they pass; lets none through once the `with` block is left."""

    def __init__(self, total: int, progress: Callable[[int, int], None]) -> None:
        self.total, self.done, self.skipped = total, 0, 0
        self._progress = progress
        self._is_over = False

    def __enter__(self) -> "Tally":
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over = True

    def count(self, tiles: Iterator[Tile]) -> Iterator[Tile]:
        """Yield from `tiles`."""
        for tile in tiles:
            if self._is_over:
                return
            yield tile
            self.done += 1
            self.skipped += tile.logits is None
            self._progress(self.done, self.total)


def _provenance(model: Model, plan: Plan, tiling: Tiling, bands: list[int]) -> dict[str, str]:
    """Return tags that say how a mask was made, as far as that can change a pixel."""
    options = {
        "tile": tiling.x.tile,
        "overlap": tiling.x.overlap,
        "guard": tiling.x.guard,
        "precision": str(plan.precision).removeprefix("torch."),
        "batch_size": plan.batch_size,
        "bands": bands,
    }
    return {
        "TIFFTAG_SOFTWARE": f"fcntile {fcntile.__version__}",
        "FCNTILE_MODEL": model.card.name,
        "FCNTILE_MODEL_SHA256": model.sha256,
        "FCNTILE_MODEL_ATTRIBUTION": model.card.attribution,
        "FCNTILE_OPTIONS": json.dumps(options),
    }
