"""`fcntile models`."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from fcntile.cli import importing, options

if TYPE_CHECKING:
    from fcntile.models.summary import Summary

HEADER = ("network", "parameters", "GMAC", "stride", "field", "halo", "published in")


@click.command(short_help="List the networks.")
@options.as_json
def models(as_json: bool) -> None:
    """List the networks that fcntile knows.

    Parameters are those for 3 bands and 21 classes without options, GMAC billions of
    multiply-accumulates for a tile of 512 px. Field is the receptive field of one pixel of the
    mask, halo how far the net sees beyond an aligned block, all in px.

    \b
    Examples:
      fcntile models
      fcntile models --json | jq '.[] | select(.gmac_512 < 50).name'
    """
    with importing.quick():
        from fcntile.models import list_models
        from fcntile.models.summary import summarise

    networks = [summarise(name) for name in list_models()]
    if as_json:
        options.print_json([asdict(network) for network in networks])
        return
    for cells in (HEADER, *map(row, networks)):
        click.echo("{:<18}{:>12}{:>9}{:>8}{:>7}{:>6}  {}".format(*cells))


def row(network: "Summary") -> tuple[str, ...]:
    """Return the cells of a network."""
    return (
        network.name,
        f"{network.parameters:,}",
        "-" if network.gmac_512 is None else f"{network.gmac_512:.2f}",
        str(network.stride),
        str(network.receptive_field),
        "none" if network.halo is None else str(network.halo),
        network.paper,
    )
