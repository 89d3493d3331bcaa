"""Rasters and labels in, model file out."""

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import fcntile
from fcntile.errors import OptionError, OutputError
from fcntile.files import check_apart, check_output, same_file
from fcntile.inference.devices import Plan, available_cpus, choose_device, make_plan, peak_rss
from fcntile.inference.signals import caught_signals
from fcntile.models.card import Card, ModelClass
from fcntile.models.model_file import Model
from fcntile.raster.gdal import safe_process
from fcntile.raster.sources import RASTERS, expand
from fcntile.raster.vectors import VECTORS
from fcntile.training.augment import Augmentation
from fcntile.training.distributed import Group, join_group
from fcntile.training.ground import Ground, prepare
from fcntile.training.loader import Windows
from fcntile.training.preview import Preview, preview
from fcntile.training.recipes import Settings
from fcntile.training.run_folder import RunFolder
from fcntile.training.session import Session
from fcntile.training.start import (
    DEFAULT_ARCH,
    Start,
    choose_start,
    fixed_tile,
    make_net,
    normalisation,
    suited,
    with_arch,
)
from fcntile.training.trainer import Trainer, class_weights
from fcntile.training.validation import Validation

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """What a training run did.

    Args:
        output: path of the model file.
        run: path of the run folder.
        arch: name of the network.
        parameters: weights of it, trained or fixed.
        classes: class id and name of each class.
        images: rasters trained on.
        steps: updates of the weights.
        best_step: after which the model in `output` was saved.
        loss: mean over the last updates.
        val: scores on the ground held out, of the model in `output`: "miou", "pixel_accuracy" and
            "iou" by class name; None if nothing was held out.
        seconds: wall time, over all sessions of the run.
        samples_per_second: training windows, in the time between validations.
        peak_rss_mb: largest memory of this process so far, in 1e6 bytes.
        device: where the net was trained.
    """

    output: str
    run: str
    arch: str
    parameters: int
    classes: dict[int, str]
    images: int
    steps: int
    best_step: int
    loss: float
    val: dict[str, Any] | None
    seconds: float
    samples_per_second: float
    peak_rss_mb: float
    device: str


@safe_process()
def train(
    images: Sequence[str] | str,
    labels: str,
    output: str | Path,
    *,
    settings: Settings | None = None,
    classes: str | None = None,
    class_field: str | None = None,
    outside: str | None = None,
    ignore: Sequence[int] = (),
    bidx: Sequence[int] | None = None,
    val: Sequence[str] = (),
    init: str | None = None,
    init_weights: str | None = None,
    run: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    threads: int | None = None,
    licence: str = "",
    attribution: str = "",
    dry_run: bool = False,
    overwrite: bool = False,
    progress: Callable[..., None] = lambda done, total, **facts: None,
) -> Summary | Preview:
    """Train a net on rasters and labels, and write the model that did best on ground held out.

    Windows are drawn straight from the rasters. Memory does not grow with them.

    Args:
        images: rasters, globs or directories.
        labels: a raster or vector file, a glob or a directory; paired with the images by name.
        output: path of the model file.
        settings: how to train.
        classes: file of the class table; without one every value found is a class.
        class_field: field of vector labels that tells the class.
        outside: what lies outside of vector labels, "background" or "unlabelled".
        ignore: label values that count as unlabelled.
        bidx: bands for the net's channels, from 1; by default every band but alpha.
        val: rasters to validate on, instead of ground held out of `images`.
        init: model file, or name of a bundled model, to start from.
        init_weights: file of another framework's weights to start from (docs/weights.md).
        run: folder of the run; by default beside the output.
        resume: go on from the last checkpoint in it.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        threads: CPUs to use, by default all that this process may use.
        licence: of the model, for its card.
        attribution: whom to name when using the model, for its card.
        dry_run: only look at the data and try two updates.
        overwrite: replace an existing output and run folder.
        progress: called with updates done, all updates, and by keyword those done in earlier
            sessions (`start`) and what is known of loss and scores.

    Raises:
        OptionError: if an option cannot be used with this net, machine or run folder.
        InputError: if images and labels cannot be trained with.
        ModelError: if there is no such net, or the loss becomes infinite or undefined.
        OutOfMemoryError: if a batch does not fit the device.
        OutputError: if the output exists, or something cannot be written.
        Stopped: after SIGINT or SIGTERM, with a checkpoint to go on from.
    """
    settings, output = settings or Settings(), Path(output)
    images = [images] if isinstance(images, str) else images
    check_output(output, overwrite=True)  # it has a name, that of the folder beside it
    if run is not None and not str(run):  # it would be the current directory
        raise OutputError("the run folder has no name: give one with --run")
    run = Path(run) if run is not None else output.with_suffix(".run")
    if not dry_run:
        files = [f for path in (*images, *val) for f in expand(path)]
        files += expand(labels, (*RASTERS, *VECTORS))
        others = [str(path) for path in (classes, init, init_weights) if path is not None]
        _check_paths(output, run, files + others, overwrite=overwrite)
    with join_group(choose_device(device).type == "cpu") as group:
        plan = _plan(device, settings, threads, group)
        start = choose_start(init, init_weights)
        settings = with_arch(settings, start)
        ground = prepare(
            images,
            labels,
            val=val,
            val_share=settings.val_share,
            seed=settings.seed,
            classes=classes,
            class_field=class_field,
            outside=outside,
            ignore=ignore,
            bidx=bidx,
        )
        card = _card(ground, settings, start, output.stem, licence, attribution)
        net = make_net(card, settings, start)
        card = suited(card, net, settings.window)
        windows = Windows(
            ground.dataset,
            ground.sampler(settings.balance),
            ground.split,
            ground.table,
            card.means,
            card.stds,
            window=settings.window,
            augmentation=Augmentation(settings.scale, settings.jitter, settings.flip),
            seed=settings.seed,
        )
        weights = class_weights(settings.class_weights, torch.from_numpy(ground.pixels[0]))
        trainer = Trainer(net, card, settings, weights, plan, group)
        held_out = Validation(
            ground.dataset,
            ground.split.windows(),
            ground.table,
            net.stride,
            fixed_tile(net, settings.window),
        )
        if settings.val_share and not val and not len(held_out) and group.is_first:
            log.warning(
                "the labels fill a single block of %d px, so nothing is held out for validation: "
                "the last model is kept, without scores",
                ground.split.side,
            )
        if dry_run:
            return preview(run, trainer, windows, ground)
        with closing(RunFolder(run)) as folder:
            session = Session(folder, trainer, windows, held_out, ground.dataset, progress)
            config = _config(ground, settings, init, init_weights)
            session.open(config, ground.split.windows(), resume=resume, overwrite=overwrite)
            with caught_signals() as signals:
                session.run(signals)
            session.finish(output)
            return _summary(output, session, ground)


def _check_paths(output: Path, run: Path, inputs: Sequence[str], *, overwrite: bool) -> None:
    """Raise OutputError unless the model file can be written, and is nothing else of the run."""
    check_output(output, overwrite=overwrite)
    check_apart(output, {"an input": inputs})
    if same_file(output) == same_file(run):
        raise OutputError(f"the output {output} is the run folder too: choose another with --run")


def _plan(device: str, settings: Settings, threads: int | None, group: Group) -> Plan:
    """Return where this process computes."""
    if settings.batch_size % group.size:
        raise OptionError(
            f"batch size {settings.batch_size} cannot be shared by {group.size} processes: "
            "use a multiple"
        )
    if group.size > 1 and choose_device(device).type == "cuda":
        if device not in ("auto", "cuda"):
            raise OptionError(
                f"{device} cannot be shared by {group.size} processes: use --device cuda, which "
                "gives each its own"
            )
        device = f"cuda:{group.local}"
        torch.cuda.set_device(choose_device(device))
    if threads is None and group.size > 1:
        threads = max(1, available_cpus() // group.size)
    return make_plan(device, settings.precision, settings.batch_size, threads)


def _card(
    ground: Ground,
    settings: Settings,
    start: Start,
    name: str,
    licence: str,
    attribution: str,
) -> Card:
    """Return the card of the model that comes out, but for its scores."""
    bands = ground.dataset.bands
    known = [grid.resolution for grid in ground.dataset.grids if grid.resolution]
    data = {"images": [Path(pair.image).name for pair in ground.dataset.pairs]}
    return Card(
        name=name,
        arch=settings.arch or DEFAULT_ARCH,
        arch_options=dict(settings.arch_options),
        bands=normalisation(
            bands.names,
            bands.dtype,
            ground.mean,
            ground.std,
            start.card if isinstance(start, Model) else start,
        ),
        dtype=bands.dtype,
        scale=bands.scale,
        offset=bands.offset,
        classes=tuple(ModelClass(c.name, c.color, c.id) for c in ground.classes),
        resolution=sorted(known)[len(known) // 2] if known else None,
        training={"fcntile": fcntile.__version__, **asdict(settings), **data},
        licence=licence,
        attribution=attribution,
    )


def _config(
    ground: Ground, settings: Settings, init: str | None, init_weights: str | None
) -> dict[str, Any]:
    """Return all that decides what a run does."""
    return {
        "fcntile": fcntile.__version__,
        "settings": asdict(settings),
        "init": init,
        "init_weights": init_weights,
        "pairs": [asdict(pair) for pair in ground.dataset.pairs],
        "bands": asdict(ground.dataset.bands),
        "classes": [asdict(c) for c in ground.classes],
        "train_pixels": ground.pixels[0].tolist(),
        "val_pixels": ground.pixels[1].tolist(),
    }


def _summary(output: Path, session: Session, ground: Ground) -> Summary:
    trainer = session.trainer
    return Summary(
        output=str(output),
        run=str(session.folder.path),
        arch=trainer.card.arch,
        parameters=sum(p.numel() for p in trainer.net.parameters()),
        classes={c.id: c.name for c in ground.classes},
        images=len(ground.dataset.pairs),
        steps=session.done,
        best_step=session.best_step,
        loss=session.loss,
        val=session.best_scores,
        seconds=round(session.seconds, 3),
        samples_per_second=round(session.samples_per_second, 3),
        peak_rss_mb=round(peak_rss() / 1e6, 1),
        device=str(trainer.plan.device),
    )
