"""`fcntile info`."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from fcntile.cli import importing, options

if TYPE_CHECKING:
    from fcntile.models.card import Card


def height_and_width(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """Return the numbers of HEIGHTxWIDTH; one number is both."""
    if value is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,5})(?:x([1-9]\d{0,5}))?", value)
    if not match:
        raise click.BadParameter(
            f"{value!r} is not HEIGHTxWIDTH in px, at most 999999, such as 512x512", ctx, param
        )
    return int(match[1]), int(match[2] or match[1])


@click.command(short_help="Say what a network or model is made of.")
@click.argument("name", metavar="NETWORK|FILE")
@click.option(
    "--size",
    metavar="HEIGHTxWIDTH",
    callback=height_and_width,
    help="Size of the tile in px.  [default: 512x512, or that of the model]",
)
@click.option("--bands", type=click.IntRange(1, 65535), help="Of the tile.  [default: 3]")
@click.option("--classes", type=click.IntRange(1, 32768), help="To tell apart.  [default: 21]")
@options.arch_option
@options.as_json
def info(
    name: str,
    size: tuple[int, int] | None,
    bands: int | None,
    classes: int | None,
    arch_options: dict[str, Any],
    as_json: bool,
) -> None:
    """Show every layer's output, weights and operations for a tile of any size.

    Nothing is computed and no weight is allocated. A model file or bundled model brings its own
    bands, classes and options, and its card is shown: what it was trained on and what it gives.

    \b
    Examples:
      fcntile info fcn8s
      fcntile info fc-densenet103 --size 360x480 --bands 4 --classes 11
      fcntile info roofs.safetensors
    """
    with importing.quick():
        from fcntile.info import info

    found = info(name, size=size, bands=bands, classes=classes, arch_options=arch_options)
    if as_json:
        options.print_json(asdict(found))
        return
    height, width = found.size
    click.echo(f"{found.name}: {found.bands} x {height} x {width} px in\n")
    form = "{:<34.34}{:<22.22}{:>19}{:>13}{:>9}{:>9}"
    click.echo(form.format("layer", "kind", "output", "parameters", "GMAC", "MB"))
    for layer in found.layers:
        shape = " x ".join(map(str, layer.shape))
        gmac = f"{layer.macs / 1e9:.2f}" if layer.macs else ""
        weights = f"{layer.parameters:,}" if layer.parameters else ""
        cells = layer.name, layer.kind, shape, weights, gmac, f"{layer.bytes / 1e6:.1f}"
        click.echo(form.format(*cells))
    halo = "none: no tiles agree" if found.halo is None else f"{found.halo} px"
    click.echo(
        f"\n{found.parameters:,} parameters ({found.parameters * 4 / 1e6:,.1f} MB), "
        f"{found.gmac:,.2f} GMAC a tile, largest map {found.largest_map_mb:,.1f} MB\n"
        f"stride {found.stride} px, receptive field {found.receptive_field} px, halo {halo}"
    )
    if found.limits:
        click.echo(f"\n{found.limits}")
    if found.card:
        click.echo("")
        for title, text in _card_rows(found.card):
            click.echo(f"{title:<12}{text}")


def _card_rows(card: "Card") -> Iterator[tuple[str, str]]:
    """Yield what a model's card says, for people: a title and a text each."""
    options = "".join(f" {name}={value}" for name, value in card.arch_options.items())
    yield "model", card.name
    yield "network", card.arch.replace("_", "-") + options
    scaled = (card.scale, card.offset) != (1, 0)
    yield "values", card.dtype + (f", scale {card.scale:g}, offset {card.offset:g}" * scaled)
    for band in card.bands:
        yield "band", f"{band.name}, mean {band.mean:.6g}, deviation {band.std:.6g}"
    for value, c in zip(card.values, card.classes, strict=True):
        yield "class", f"{value} {c.name} {c.color}"
    if card.resolution:
        yield "pixel", f"{card.resolution:.3g} m"
    yield "tile", f"{card.tile} px, overlap {card.overlap} px"
    for title, text in (("licence", card.licence), ("attribution", card.attribution)):
        if text:
            yield title, text
