"""`fcntile inspect`."""

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from fcntile.cli import importing, options

if TYPE_CHECKING:
    from fcntile.inspect import Summary


def window(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Return COL,ROW,WIDTH,HEIGHT as integers."""
    if value is None:
        return None
    if not re.fullmatch(r"\d{1,9}(,\d{1,9}){3}", value):
        raise click.BadParameter(f"{value!r} is not COL,ROW,WIDTH,HEIGHT in px", ctx, param)
    return tuple(map(int, value.split(",")))


@click.command(short_help="Show what a net sees.")
@click.argument("model", metavar="MODEL")
@click.argument("input", metavar="INPUT")
@click.option(
    "-o", "--output", metavar="FILE", required=True, help="The picture: .png, .pdf, .svg."
)
@click.option(
    "--window",
    metavar="COL,ROW,WIDTH,HEIGHT",
    callback=window,
    help="Window to show, in px; width and height are multiples of the net's stride.  "
    "[default: a tile in the middle]",
)
@click.option(
    "--maps",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Maps to show of each stage.",
)
@options.bidx
@options.device
@options.threads
@options.overwrite
@options.as_json
def inspect(as_json: bool, **values: Any) -> None:
    """Show what a net makes of an image, stage by stage, and how far it looks.

    MODEL is a model file or the name of a bundled model. INPUT is a raster that fits it.

    The picture has a row for every stage of the net, from the image through its layers to the mask,
    with the maps that vary most. Beside them is the effective receptive field: the gradient of the
    best logit with respect to the image, and around it the theoretical receptive field. An overlap
    of tiles that suits it is printed.

    \b
    Examples:
      fcntile inspect buildings ortho.tif -o maps.png
      fcntile inspect roofs.safetensors ortho.tif -o maps.png --window 2000,1000,512,512
      fcntile inspect roofs.safetensors ortho.tif -o maps.png --json | jq .recommended_overlap
    """
    with importing.quick():
        from fcntile.inspect import inspect

    summary = inspect(**values)
    if as_json:
        options.print_json(asdict(summary))
    else:
        click.echo(_line(summary))


def _line(found: "Summary") -> str:
    """Return what was measured, for people."""
    overlap = f"recommended overlap {found.recommended_overlap} px"
    if found.full_overlap > found.recommended_overlap:
        overlap += f" (half a tile; {found.full_overlap} px for tiles that have room for it)"
    return (
        f"effective receptive field {found.effective_field_99} px (99 % of the gradient; 95 %: "
        f"{found.effective_field_95} px), theoretical {found.receptive_field} px; {overlap}, the "
        f"card's overlap {found.overlap} px"
    )
