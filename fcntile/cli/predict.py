"""`fcntile predict`."""

from dataclasses import asdict
from typing import Any

import click

from fcntile.cli import importing, options
from fcntile.cli.progress import reporting
from fcntile.inference.choices import DRIVERS, DTYPES, PRODUCTS, STITCHES

FORECAST = """\
outputs   {width} x {height} px, about {output_mb:.1f} MB
tiles     {tiles} of {tile} px, overlap {overlap}, guard {guard}, {stitch}; {empty_tiles} empty
compute   {compute_factor:.2f} net pixels per pixel (512/128 has 1.78)
parts     {parts}, in swaths of {swath} columns
memory    {memory_mb:.0f} MB
device    {device}
time      about {seconds:.1f} s"""


@click.command(short_help="Segment a raster.")
@click.argument("input", metavar="INPUT")
@click.option("-o", "--output", metavar="FILE", required=True, help="The mask to write.")
@options.model
@click.option(
    "--tile",
    metavar="PX|auto",
    callback=options.pixels_or_auto,
    help="Side of a tile in px; auto is the largest that fits the memory.  [default: the model's, "
    "512 for bundled ones; auto for exact stitching]",
)
@click.option(
    "--overlap",
    metavar="PX|%",
    callback=options.pixels_or_share,
    help="Px, or share of the tile like 25%, that neighbours share.  "
    "[default: the model's, 128 for bundled ones, or twice the net's halo, if that is less]",
)
@click.option(
    "--stitch",
    type=click.Choice(STITCHES),
    default="cosine",
    show_default=True,
    help="How tiles become one: blended by a cosine over their overlap; cropped by all that the "
    "net sees, which gives the mask of the untiled raster; or cropped in the overlap's middle.",
)
@click.option(
    "--aoi",
    metavar="FILE",
    help="Polygons of interest, in any CRS: only tiles that touch them are inferred, and outside "
    "of them the mask has no data.",
)
@click.option(
    "--bounds",
    metavar="'L B R T'",
    callback=options.bounds,
    help="Clip to left, bottom, right, top in the CRS of INPUT.",
)
@click.option(
    "--threshold",
    metavar="[CLASS=]P",
    help="Probability from which a pixel is of a class: of the second of two, or the one named.",
)
@click.option("--probabilities", metavar="FILE", help="Write the probability of each class, too.")
@click.option("--confidence", metavar="FILE", help="Write the largest probability, too.")
@click.option("--entropy", metavar="FILE", help="Write how undecided the net is, 0 to 1, too.")
@click.option("--logits", metavar="FILE", help="Write what the net gives for each class, too.")
@click.option(
    "-t",
    "--dtype",
    type=click.Choice(DTYPES),
    default="uint8",
    show_default=True,
    help="Numbers in these: uint8 is 1 to 255 for 0 to 1, and 0 for no data; not for logits, which "
    "are float32 then.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Tiles per forward pass.  [default: 1 on CPUs, 8 on GPUs]",
)
@options.device
@options.precision
@options.bidx
@options.threads
@click.option(
    "-f",
    "--format",
    "--driver",
    "driver",
    type=click.Choice(DRIVERS, case_sensitive=False),
    default="COG",
    show_default=True,
    help="Format of all outputs.",
)
@options.creation_options
@options.overwrite
@click.option(
    "--max-memory",
    metavar="SIZE",
    callback=options.size,
    help="Memory that the process may hold, such as 2GB.  "
    "[default: its own and half of what is free]",
)
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(min=1),
    help="Processes of this machine that share the work, its threads and memory; on GPUs one each.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Dask scheduler whose workers do the work, such as tcp://host:8786; --threads and "
    "--max-memory are each worker's then.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Write nothing; say which tiles, how much memory, and how long, by a trial of 2 s.",
)
@click.option("--restart", is_flag=True, help="Forget the finished parts of an earlier run.")
@options.as_json
@options.progress
def predict(as_json: bool, progress: str | None, **values: Any) -> None:
    """Write the mask of a raster: the class of every pixel.

    INPUT is whatever rasterio opens: a GeoTIFF, JPEG 2000 or VRT, a /vsi path, an https:// or s3://
    URL, a file in an archive. It is read, inferred and written in rows of overlapping tiles, so
    memory does not grow with its height.

    The mask is a Cloud-Optimized GeoTIFF on the same grid: the values of the labels that the model
    learned from, 255 (65535 in uint16) where INPUT has no data, with colours and class names. It
    appears only when it is whole. Until then its finished parts are in FILE.parts: whatever ends
    the run, the same command goes on from there.

    Bands, dtype and scale must be what the model was trained on; its card says so, and what does
    not fit is an error before any work.

    \b
    Examples:
      fcntile predict ortho.tif -o mask.tif
      fcntile predict s3://bucket/scene.tif -o mask.tif --model roofs.safetensors
      fcntile predict rgbn.tif -o mask.tif -b 1 -b 2 -b 3 --co COMPRESS=ZSTD
    """
    if values["workers"]:
        from fcntile.inference.cluster.local_workers import start_importing

        start_importing("fcntile.predict")
    with importing.quick():
        from fcntile.predict import predict

    products = {name: path for name in PRODUCTS if (path := values.pop(name))}
    with reporting("none" if values["dry_run"] else progress, unit="tile") as report:
        made = predict(progress=report, products=products, **values)
    if as_json:
        options.print_json(asdict(made))
    elif values["dry_run"]:
        click.echo(FORECAST.format(**asdict(made)))
