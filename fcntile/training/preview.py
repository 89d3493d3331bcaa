"""What a run would train on and cost, tried before it starts."""

import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fcntile.inference.devices import peak_rss
from fcntile.training.ground import Ground
from fcntile.training.loader import Windows, load
from fcntile.training.pictures import draw_classes, draw_image, save_samples, shown_bands
from fcntile.training.run_folder import RunFolder
from fcntile.training.trainer import Trainer

PICTURES = 4  # windows in the picture


@dataclass(frozen=True)
class Preview:
    """What a run would train on, and what a step of it costs, measured.

    Args:
        images: path, labels, width and height of each raster.
        classes: value, name, train_pixels and val_pixels of each class.
        bands: name, mean and std of each band over the training ground.
        arch: name of the network.
        parameters: weights of it.
        steps: updates of the weights.
        samples: windows in all.
        step_seconds: of one update, after one that warms up.
        peak_mb: largest memory of the device so far, or of the process on CPUs, in 1e6 bytes.
        picture: path of a picture of training windows and their labels.
    """

    images: list[dict[str, Any]]
    classes: list[dict[str, Any]]
    bands: list[dict[str, Any]]
    arch: str
    parameters: int
    steps: int
    samples: int
    step_seconds: float
    peak_mb: float
    picture: str


def preview(run: Path, trainer: Trainer, windows: Windows, ground: Ground) -> Preview:
    """Try two updates, and draw some windows."""
    settings, card, device = trainer.settings, trainer.card, trainer.plan.device
    size = settings.batch_size
    numbers = [range(i * size, (i + 1) * size) for i in range(2 * settings.accumulate)]
    if device.type == "cpu":
        torch.set_num_threads(trainer.plan.threads)
    with closing(load(windows, numbers, trainer.plan.threads)) as batches:
        trainer.step(0, batches)
        start = time.perf_counter()
        trainer.step(1, batches)
        seconds = time.perf_counter() - start
    on_gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(device) if on_gpu else peak_rss()
    shown = [windows[i] for i in range(PICTURES)]
    picture = RunFolder(run).path / "samples.png"
    if trainer.group.is_first:
        save_samples(
            picture,
            [
                [draw_image(x.numpy(), shown_bands(card)), draw_classes(y.numpy(), card)]
                for x, y in shown
            ],
        )
    dataset = ground.dataset
    return Preview(
        images=[
            {**asdict(pair), "width": grid.width, "height": grid.height}
            for pair, grid in zip(dataset.pairs, dataset.grids, strict=True)
        ],
        classes=[
            {"value": c.id, "name": c.name, "train_pixels": int(n), "val_pixels": int(v)}
            for c, n, v in zip(ground.classes, *ground.pixels, strict=True)
        ],
        bands=[asdict(band) for band in card.bands],
        arch=card.arch,
        parameters=sum(p.numel() for p in trainer.net.parameters()),
        steps=settings.steps,
        samples=settings.steps * settings.accumulate * size,
        step_seconds=round(seconds, 3),
        peak_mb=round(peak / 1e6, 1),
        picture=str(picture),
    )
