"""Score a net on ground that was held out, through the engine that predicts."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window

from fcntile.inference.devices import Plan
from fcntile.inference.engine import Engine
from fcntile.inference.products import best_class
from fcntile.inference.stages import Clock
from fcntile.inference.tiling import Tiling
from fcntile.models.model_file import Model
from fcntile.raster.classes import UNLABELLED
from fcntile.raster.reader import Strip
from fcntile.training.dataset import Dataset
from fcntile.training.distributed import Group
from fcntile.training.loader import normalise
from fcntile.training.metrics import Scores, confusion_matrix
from fcntile.training.pictures import draw_classes, draw_image, save_samples, shown_bands

CONTEXT = 64  # px around a block that the net sees too
PICTURES = 4  # blocks in a picture
MAX_BLOCKS = 256  # of a validation during training, spread evenly


class Validation:
    """Blocks of ground to score a net on.

    Args:
        dataset: where they are read.
        windows: raster and window of each block, all of one side. A net that takes only one size
            sees a block in pieces.
        table: from label values to class positions.
        stride: of the net, in px.
        size: the only side of a tile that suits the net; None if any does.
    """

    def __init__(
        self,
        dataset: Dataset,
        windows: Sequence[tuple[int, Window]],
        table: NDArray[np.uint16],
        stride: int,
        size: int | None = None,
    ) -> None:
        if size:
            windows = [piece for image, w in windows for piece in _pieces(image, w, size)]
        every = max(1, -(-len(windows) // MAX_BLOCKS))
        self.windows = list(windows)[::every]
        self._dataset, self._table = dataset, table
        side = int(windows[0][1].width) if windows else 1
        self._context = 0 if size else -(-CONTEXT // stride) * stride
        self._tile = size or -(-side // stride) * stride + 2 * self._context

    def __len__(self) -> int:
        return len(self.windows)

    def read(self, block: int) -> tuple[NDArray[np.generic], NDArray[np.bool_], NDArray[np.uint16]]:
        """Return a block with its context: pixels, which are valid, class positions.

        Beyond the raster's rim it is completed by reflection, as in prediction. Only what lies in
        the block is labelled.
        """
        image, window = self.windows[block]
        grid, c, tile = self._dataset.grids[image], self._context, self._tile
        top, left = int(window.row_off) - c, int(window.col_off) - c
        around = Window(left, top, tile, tile)
        inside = around.intersection(Window(0, 0, grid.width, grid.height))
        pixels, valid, values = self._dataset.read(image, inside)
        beyond = [
            (int(start - first), int(first + tile - start - size))
            for first, start, size in (
                (top, inside.row_off, inside.height),
                (left, inside.col_off, inside.width),
            )
        ]
        labels = np.full((tile, tile), UNLABELLED, np.uint16)
        core = self.block(block)
        labels[core] = np.pad(self._table[values], beyond, constant_values=UNLABELLED)[core]
        pixels = np.pad(pixels, [*beyond, (0, 0)], mode="reflect")
        return pixels, np.pad(valid, beyond, mode="reflect"), labels

    def block(self, block: int) -> tuple[slice, slice]:
        """Return the rows and columns of a block in its tile."""
        window = self.windows[block][1]
        c = self._context
        return slice(c, c + int(window.height)), slice(c, c + int(window.width))

    def masks(
        self, model: Model, plan: Plan, blocks: Sequence[int]
    ) -> Iterator[NDArray[np.unsignedinteger]]:
        """Yield the class positions that a model gives for blocks with their context.

        Yields:
            (tile, tile)
        """

        def strips() -> Iterator[Strip]:
            for block in blocks:
                pixels, valid, _ = self.read(block)
                yield Strip(pixels, None if valid.all() else valid)

        tile = self._tile
        if plan.device.type == "cpu":
            plan = replace(plan, batch_size=1)  # for each worker, as in prediction
        rows = Tiling.over(height=len(blocks) * tile, width=tile, tile=tile, overlap=0)
        engine = Engine(model, plan, rows, Clock())
        for inferred in engine.infer(strips(), rows.block()):
            if inferred.logits is None:
                yield np.full((tile, tile), UNLABELLED, np.uint16)
            else:
                yield best_class(inferred.logits)[1].cpu().numpy()

    def confusion(self, model: Model, plan: Plan, blocks: Sequence[int]) -> NDArray[np.int64]:
        """Return the (classes, classes) confusion matrix over blocks."""
        classes = len(model.card.classes)
        total = np.zeros((classes, classes), np.int64)
        for block, ids in zip(blocks, self.masks(model, plan, blocks), strict=True):
            total += confusion_matrix(self.read(block)[2], ids, classes)
        return total

    def scores(self, model: Model, plan: Plan, group: Group) -> dict[str, Any] | None:
        """Return "miou", "pixel_accuracy" and "iou" by class name, over all processes.

        None if no pixel held out has a class.
        """
        mine = self.confusion(model, plan, range(group.rank, len(self), group.size))
        counted = torch.from_numpy(mine)
        if group.size > 1:
            counted = group.total(counted.to(plan.device)).cpu()
        confusion = counted.numpy()
        if not confusion.any():
            return None
        found = Scores.of(confusion)
        named = zip(model.card.classes, found.iou, strict=True)
        return {
            "miou": float(found.miou),
            "pixel_accuracy": float(found.pixel_accuracy),
            "iou": {c.name: None if np.isnan(iou) else float(iou) for c, iou in named},
        }

    def draw(self, path: Path, model: Model, plan: Plan) -> None:
        """Draw imagery, labels and mask of some blocks, always the same ones.

        Raises:
            OutputError: if the picture cannot be written.
        """
        card = model.card
        areas = [w.width * w.height for _, w in self.windows]
        whole = [block for block, area in enumerate(areas) if area == max(areas)]
        blocks = whole[:: -(-len(whole) // PICTURES)]
        mean, std = np.array(card.means, np.float32), np.array(card.stds, np.float32)
        samples = []
        for block, ids in zip(blocks, self.masks(model, plan, blocks), strict=True):
            pixels, valid, labels = self.read(block)
            rows, columns = self.block(block)
            x = normalise(pixels, valid, mean, std).numpy()[:, rows, columns]
            found = np.where(valid, ids, UNLABELLED)[rows, columns]
            pictures = draw_image(x, shown_bands(card)), draw_classes(labels[rows, columns], card)
            samples.append([*pictures, draw_classes(found, card)])
        save_samples(path, samples)


def _pieces(image: int, window: Window, size: int) -> Iterator[tuple[int, Window]]:
    """Yield a window in pieces of at most `size` px."""
    bottom, right = int(window.row_off + window.height), int(window.col_off + window.width)
    for top in range(int(window.row_off), bottom, size):
        for left in range(int(window.col_off), right, size):
            yield image, Window(left, top, min(size, right - left), min(size, bottom - top))
