"""`fcntile train`."""

import os
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from fcntile.cli import importing, options
from fcntile.cli.progress import reporting
from fcntile.training.recipes import (
    OPTIMIZERS,
    RECIPES,
    SCHEDULES,
    Settings,
    make_settings,
)

if TYPE_CHECKING:
    from fcntile.training.preview import Preview

DEFAULTS = Settings()
Command = Callable[..., Any]


def setting(flag: str, help: str, **more: Any) -> Callable[[Command], Command]:
    """Return an option for a field of `Settings`, which is None if it is not given."""
    name = flag.removeprefix("--").replace("-", "_")
    default = getattr(DEFAULTS, name)
    return click.option(flag, name, help=f"{help}  [default: {default}]", **more)


@click.command(short_help="Train a model.")
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True)
@click.argument("labels", metavar="LABELS")
@click.option("-o", "--output", metavar="FILE", required=True, help="The model file to write.")
@options.classes
@options.class_field
@options.outside
@options.ignore
@click.option(
    "--val",
    metavar="FILE",
    multiple=True,
    help="Image to validate on, with labels among LABELS; repeatable, a glob or directory too.  "
    "[default: ground held out of IMAGES]",
)
@setting("--val-share", "Share of the ground held out for validation; 0 for none.", type=float)
@click.option("--recipe", type=click.Choice(list(RECIPES)), help="Settings that a paper published.")
@click.option("--arch", metavar="NAME", help="Network.  [default: that of --init, or fcn8s-small]")
@options.arch_option
@click.option(
    "--init", metavar="FILE|NAME", help="Model to start from; its network is the default then."
)
@click.option(
    "--init-weights",
    metavar="FILE",
    help="Weights of VGG16, an FCN or ResNet-50 to start from, as Keras, torch, Caffe, MatConvNet "
    "or numpy has them; the default network is fcn8s then.",
)
@setting("--steps", "Updates of the weights.", type=click.IntRange(min=1))
@setting("--window", "Side of a training window in px.", type=click.IntRange(min=1))
@setting("--batch-size", "Windows per forward pass, of all processes.", type=click.IntRange(min=1))
@setting("--accumulate", "Forward passes per update.", type=click.IntRange(min=1))
@setting("--loss", "Sum of ce, dice and focal, such as ce+0.5*dice.", metavar="SUM")
@setting("--class-weights", "none, auto, or a number for each class.", metavar="W,W,...")
@setting("--optimizer", "Optimiser.", type=click.Choice(OPTIMIZERS))
@setting("--lr", "Highest learning rate.", type=click.FloatRange(min=0, min_open=True))
@setting("--momentum", "Momentum of sgd.", type=click.FloatRange(0, 1, max_open=True))
@setting("--weight-decay", "Decay of kernels.", type=click.FloatRange(min=0))
@setting("--schedule", "Course of the learning rate.", type=click.Choice(SCHEDULES))
@setting("--warmup", "Updates in which the learning rate rises.", type=click.IntRange(min=0))
@setting("--clip-grad", "Largest norm of the gradient; 0 for any.", type=click.FloatRange(min=0))
@setting("--ema", "Decay of the moving average of weights; 0 for none.", type=float)
@setting("--balance", "Share of windows drawn by class, all alike; others by area.", type=float)
@setting("--scale", "Largest factor by which windows shrink or grow.", type=float)
@setting("--jitter", "Largest change of brightness and contrast.", type=click.FloatRange(min=0))
@click.option(
    "--flip/--no-flip", default=None, help="Mirror and turn windows by quarters.  [default: flip]"
)
@options.bidx
@setting("--val-every", "Updates between validations; 0 is a twentieth.", type=click.IntRange(0))
@click.option(
    "--run", metavar="DIR", help="Folder of the run.  [default: OUTPUT with .run for its suffix]"
)
@click.option("--resume", is_flag=True, help="Go on with the run in the folder, if there is one.")
@options.device
@options.precision
@options.threads
@setting("--seed", "Seed of everything random.", type=click.IntRange(min=0))
@options.licence
@options.attribution
@click.option("--dry-run", is_flag=True, help="Show what would be trained on, and stop.")
@options.overwrite
@options.as_json
@options.progress
def train(
    recipe: str | None, as_json: bool, progress: str | None, dry_run: bool, **values: Any
) -> None:
    """Train a model on rasters and labels.

    IMAGES are rasters, globs or directories, all with the same bands. LABELS is a raster of
    class ids or a vector file for all of them, or a glob or directory of labels, paired by
    name: those of ortho_1.tif are ortho_1.* or ortho_1_label.*, but not ortho_1_2.*. Labels may
    have another CRS, resolution or extent than their image. The value 255, nodata and what
    --ignore names are not learned.

    Windows are drawn straight from the rasters, many of them where rare classes are. A fifth of the
    ground is held out; the model that does best there becomes OUTPUT, for fcntile predict. The
    folder of the run has curves, scores, samples and the checkpoint for --resume.

    \b
    Examples:
      fcntile train ortho.tif roofs.geojson -o roofs.safetensors
      fcntile train images/ labels/ -o cover.safetensors --classes cover.csv --dry-run
      fcntile train scene.tif fields.gpkg --class-field crop -o crops.safetensors --steps 20000
      torchrun --nproc-per-node 4 -m fcntile train images/ labels/ -o cover.safetensors
    """
    with importing.quick():
        from fcntile.train import train

    known = {name: values.pop(name) for name in list(values) if hasattr(DEFAULTS, name)}
    known["arch_options"] = known["arch_options"] or None
    is_quiet = os.environ.get("RANK", "0") != "0"  # of several processes the first one talks
    with reporting("none" if is_quiet else progress, unit="step") as report:
        done = train(
            settings=make_settings(recipe, **known), dry_run=dry_run, progress=report, **values
        )
    if is_quiet:
        return
    if as_json:
        options.print_json(asdict(done))
    elif dry_run:
        _show(done)  # type: ignore[arg-type]


def _show(preview: "Preview") -> None:
    """Print what a run would train on."""
    for image in preview.images:
        size = f"{image['width']} x {image['height']} px"
        click.echo(f"{image['image']}  {size}  labels {image['labels']}")
    click.echo("\nclass                         training px    validation px")
    for c in preview.classes:
        name = f"{c['value']} {c['name']}"
        click.echo(f"{name:<24.24}{c['train_pixels']:>17,}{c['val_pixels']:>17,}")
    click.echo("\nband                             mean        deviation")
    for band in preview.bands:
        click.echo(f"{band['name']:<24.24}{band['mean']:>13.5g}{band['std']:>17.5g}")
    hours, minutes = divmod(round(preview.steps * preview.step_seconds / 60), 60)
    click.echo(
        f"\n{preview.arch}, {preview.parameters:,} weights\n"
        f"{preview.steps:,} steps, {preview.samples:,} windows, {preview.step_seconds:g} s a step: "
        f"{hours} h {minutes} min\n"
        f"{preview.peak_mb:,.0f} MB at the peak\n"
        f"samples in {preview.picture}"
    )
