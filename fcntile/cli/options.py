"""Options that commands share, and what their values become."""

import json
import re
from typing import Any

import click

from fcntile.inference.choices import PRECISIONS

LEAST_SIZE = 1e6  # bytes; no run takes so little


def pixels_or_share(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> int | str | None:
    """Return pixels as an int, and a share such as "25%" as it is."""
    if value is None or re.fullmatch(r"\d+(\.\d+)?%", value):
        return value
    if not value.isdecimal():
        raise click.BadParameter(f"{value!r} is neither pixels nor a share like 25%", ctx, param)
    return int(value)


def pixels_or_auto(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> int | str | None:
    """Return pixels as an int, and "auto" as it is."""
    if value is None or value == "auto":
        return value
    if not value.isdecimal() or not int(value):
        raise click.BadParameter(f"{value!r} is neither a number of pixels nor auto", ctx, param)
    return int(value)


def bounds(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    """Return the four numbers of "l b r t" or "[l, b, r, t]", as rio has them."""
    if value is None:
        return None
    try:
        left, bottom, right, top = map(float, value.strip("[] ").replace(",", " ").split())
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not 'left bottom right top'", ctx, param) from error
    return left, bottom, right, top


def size(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return bytes of sizes such as 2GB, 512 MiB or 1.5e9."""
    if value is None:
        return None
    found = re.fullmatch(r"([\d.]+(?:e\d+)?)\s*([kMGT]?)(i?)B?", value.strip(), re.IGNORECASE)
    try:
        number = float(found[1]) if found else 0
    except ValueError:
        number = 0
    if not found or not number:
        raise click.BadParameter(f"{value!r} is no size like 2GB or 512MB", ctx, param)
    step = 1024 if found[3] else 1000
    size = number * float(step ** " KMGT".index(found[2].upper() or " "))
    if size < LEAST_SIZE:
        raise click.BadParameter(f"{value!r} is {size:g} bytes: use 1MB or more", ctx, param)
    return size


def name_value_pairs(
    ctx: click.Context, param: click.Parameter, pairs: tuple[str, ...]
) -> dict[str, str]:
    """Return `NAME=VALUE` options as a dictionary with lower-case names."""
    values = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", ctx, param)
        values[name.lower()] = value
    return values


def arch_options(
    ctx: click.Context, param: click.Parameter, pairs: tuple[str, ...]
) -> dict[str, Any]:
    """Return `NAME=VALUE` options with their values as JSON has them: 12, 0.1, true, text."""
    values: dict[str, Any] = {}
    for name, text in name_value_pairs(ctx, param, pairs).items():
        try:
            values[name] = json.loads(text)
        except (ValueError, RecursionError):
            values[name] = text
    return values


def print_json(summary: Any) -> None:
    """Print what a command did, as `--json` wants it: one line on stdout."""
    click.echo(json.dumps(summary))


arch_option = click.option(
    "--arch-option",
    "arch_options",
    metavar="NAME=VALUE",
    multiple=True,
    callback=arch_options,
    help="Option of the network, such as width=64; repeatable.",
)
model = click.option(
    "--model",
    metavar="FILE|NAME",
    default="buildings",
    show_default=True,
    envvar="FCNTILE_MODEL",
    show_envvar=True,
    help="Model file, or name of a bundled model.",
)
device = click.option(
    "--device",
    metavar="auto|cpu|cuda|cuda:N|mps",
    default="auto",
    show_default=True,
    help="Where the net runs; auto is a GPU if there is one.",
)
precision = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="Numbers the net computes with; auto is fp32. Half precision changes some labels.",
)
bidx = click.option(
    "-b",
    "--bidx",
    type=click.IntRange(min=1),
    multiple=True,
    help="Band for the net's next channel, from 1; repeatable.  [default: all but alpha]",
)
threads = click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPUs to use.  [default: all that the process may use]",
)
classes = click.option(
    "--classes",
    metavar="FILE",
    help="Class table: a .csv, .json or .yaml file of value, name and color.",
)
class_field = click.option(
    "--class-field",
    metavar="NAME",
    help="Field of vector labels that tells the class.  [default: every feature is class 1]",
)
outside = click.option(
    "--outside",
    type=click.Choice(["background", "unlabelled"]),
    help="What pixels outside of all features are: class 0, or without a label.  [default: "
    "background without --class-field, or if the class table has a class 0 that no feature has; "
    "else unlabelled]",
)
ignore = click.option(
    "--ignore",
    metavar="VALUE",
    type=click.IntRange(0, 65535),
    multiple=True,
    help="Label value that counts as unlabelled; repeatable.",
)
creation_options = click.option(
    "--co",
    "--profile",
    "creation_options",
    metavar="NAME=VALUE",
    multiple=True,
    callback=name_value_pairs,
    help="GDAL creation option of the output format; repeatable.",
)
licence = click.option(
    "--licence", default="", metavar="TEXT", help="Licence of the model, for its card."
)
attribution = click.option(
    "--attribution", default="", metavar="TEXT", help="Whom to name, for its card."
)
overwrite = click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON on stdout.")
progress = click.option(
    "--progress",
    type=click.Choice(["bar", "json", "none"]),
    help="Progress on stderr: a bar, or a JSON object a line.  [default: bar on a terminal]",
)
