"""All that a run knows about its data: classes, ground for training and validation, statistics."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fcntile.errors import InputError
from fcntile.files import same_file
from fcntile.raster.classes import (
    NO_LABEL,
    UNLABELLED,
    Class,
    check_values,
    found_classes,
    lookup,
    read_classes,
)
from fcntile.raster.sources import LabelSource, pair_files
from fcntile.training.dataset import Dataset
from fcntile.training.sampling import Sampler, Split, split_by_files, split_by_ground
from fcntile.training.survey import Survey, survey


@dataclass(frozen=True)
class Ground:
    """What there is to learn from.

    Args:
        dataset: rasters and labels.
        classes: the class table.
        table: (65536,) from label values to positions in it.
        split: what is held out.
        pixels: (2, classes) labelled pixels for training and for validation.
        mean: of each band over the training ground, in the raster's units.
        std: likewise.
        found: the survey.
    """

    dataset: Dataset
    classes: list[Class]
    table: NDArray[np.uint16]
    split: Split
    pixels: NDArray[np.int64]
    mean: list[float]
    std: list[float]
    found: Survey

    def sampler(self, balance: float) -> Sampler:
        """Return what draws windows from the training ground."""
        counts = self.found.counts
        positions = self.table[counts.value]
        chosen = (positions != UNLABELLED) & ~self.split.of(counts)
        return Sampler(counts[chosen], positions[chosen], balance)


def prepare(
    images: Sequence[str],
    labels: str,
    *,
    val: Sequence[str] = (),
    val_share: float = 0.2,
    seed: int = 0,
    classes: str | None = None,
    class_field: str | None = None,
    outside: str | None = None,
    ignore: Sequence[int] = (),
    bidx: Sequence[int] | None = None,
) -> Ground:
    """Look at images and labels, and decide what to train and what to validate on.

    Args:
        images: files, globs or directories.
        labels: a file, a glob or a directory.
        val: images to validate on; without them ground of the others is held out.
        val_share: how much of it.
        seed: of the choice.
        classes: file of the class table; without one every value found is a class.
        class_field: of vector labels.
        outside: what lies outside of vector labels, "background" or "unlabelled".
        ignore: label values that count as unlabelled.
        bidx: band numbers from 1.

    Raises:
        InputError: if images and labels cannot be trained with.
    """
    given = read_classes(classes) if classes is not None else None
    pairs = pair_files(images, labels)
    held_out = pair_files(val, labels) if val else []
    hidden = {same_file(pair.image) for pair in held_out}
    pairs = [pair for pair in pairs if same_file(pair.image) not in hidden]
    if not pairs:
        raise InputError("every image is held out for validation: none is left to train on")
    paths = [pair.labels for pair in pairs + held_out]
    source = LabelSource(paths, class_field=class_field, outside=outside, classes=given)
    dataset = Dataset(pairs + held_out, source, bidx)
    found = survey(dataset)
    values = [value for value in found.values if value not in ignore]
    if not values or values == [NO_LABEL]:
        raise InputError(
            f"no pixel of the images is labelled by {labels}: "
            "255, nodata and what --ignore names are not labels"
        )
    known = found_classes(values, source.legend) if given is None else given
    table = lookup(known, ignore)
    check_values(values, table, f"the labels {labels}")
    if len(known) < 2:
        named = ", ".join(f"{c.id} ({c.name})" for c in known) or "none"
        raise InputError(
            f"the labels {labels} have fewer than two classes: {named}"
            " (is everything else unlabelled? see --outside, --ignore)"
        )
    if val:
        split = split_by_files(found, len(pairs))
    else:
        split = split_by_ground(found, table, val_share, np.random.default_rng(seed))
    pixels = _count(found, table, split, len(known))
    if not pixels[0].sum():
        raise InputError(
            f"{labels} label no pixel of the images to train on, only of those to validate on"
        )
    if val and not pixels[1].sum():
        raise InputError(f"{labels} label no pixel of the images to validate on")
    mean, std = found.moments.total(~split.held_out)
    return Ground(
        dataset, known, table, split, pixels, mean.tolist(), _positive(std).tolist(), found
    )


def _count(
    found: Survey, table: NDArray[np.uint16], split: Split, classes: int
) -> NDArray[np.int64]:
    """Return (2, classes) labelled pixels: for training, for validation."""
    held_out, position = split.of(found.counts), table[found.counts.value]
    pixels = np.zeros((2, classes), np.int64)
    known = position != UNLABELLED
    np.add.at(pixels, (held_out[known].astype(int), position[known]), found.counts.pixels[known])
    return pixels


def _positive(std: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return deviations that can be divided by: a band that is constant keeps its units."""
    return np.where(std > 0, std, 1.0)
