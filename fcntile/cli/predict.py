"""`fcntile predict`."""

import json
import sys
from dataclasses import asdict
from typing import Any

import click

from fcntile.cli import options
from fcntile.cli.progress import reporting


@click.command(short_help="Segment a raster.")
@click.argument("input", metavar="INPUT")
@click.option("-o", "--output", metavar="FILE", required=True, help="The mask to write.")
@options.model
@click.option(
    "--tile",
    type=click.IntRange(min=1),
    help="Side of a tile in px.  [default: the model's, 512 for bundled ones]",
)
@click.option(
    "--overlap",
    metavar="PX|%",
    callback=options.pixels_or_share,
    help="Px, or share of the tile like 25%, that neighbours share.  "
    "[default: the model's, 128 for bundled ones]",
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
    type=click.Choice(["COG", "GTiff"], case_sensitive=False),
    default="COG",
    show_default=True,
    help="Format of the mask.",
)
@options.creation_options
@options.overwrite
@options.as_json
@options.progress
def predict(as_json: bool, progress: str | None, **values: Any) -> None:
    """Write the mask of a raster: the class of every pixel.

    INPUT is whatever rasterio opens: a GeoTIFF, JPEG 2000 or VRT, a /vsi path, an https:// or s3://
    URL, a file in an archive. It is read, inferred and written in rows of overlapping tiles, so
    memory does not grow with its height.

    The mask is a Cloud-Optimized GeoTIFF on the same grid: the values of the labels that the model
    learned from, 255 (65535 in uint16) where INPUT has no data, with colours and class names. It
    appears only when it is whole.

    Bands, dtype and scale must be what the model was trained on; its card says so, and what does
    not fit is an error before any work.

    \b
    Examples:
      fcntile predict ortho.tif -o mask.tif
      fcntile predict s3://bucket/scene.tif -o mask.tif --model roofs.safetensors
      fcntile predict rgbn.tif -o mask.tif -b 1 -b 2 -b 3 --co COMPRESS=ZSTD
    """
    from fcntile.predict import predict

    with reporting(progress, unit="tile") as report:
        summary = predict(progress=report, **values)
    if as_json:
        json.dump(asdict(summary), sys.stdout)
        sys.stdout.write("\n")
