"""Pictures of samples: imagery, labels and mask side by side."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.io import imsave
from skimage.util import montage

from fcntile.files import whole_file
from fcntile.models.card import Card

GAP = 8  # px between pictures
GRAY = 128  # of unlabelled pixels
BRIGHTEST = 2.0  # standard deviations from the mean


def shown_bands(card: Card) -> list[int]:
    """Return which three channels to show as red, green and blue.

    >>> from fcntile.models.card import Band, ModelClass
    >>> bands = tuple(Band(name, 0, 1) for name in ("blue", "green", "red", "nir"))
    >>> shown_bands(Card("x", "pixel", bands, "uint8", (ModelClass("a", "#000000"),)))
    [2, 1, 0]
    """
    names = [band.name.lower() for band in card.bands]
    colours = [
        [i for i, name in enumerate(names) if colour in name] for colour in ("red", "green", "blue")
    ]
    if all(colours):
        return [found[0] for found in colours]
    return [0, 1, 2] if len(names) >= 3 else [0, 0, 0]


def draw_image(x: NDArray[np.float32], bands: Sequence[int]) -> NDArray[np.uint8]:
    """Return a picture of normalised channels: mid gray is their mean.

    Args:
        x: (bands, H, W)
        bands: to show as red, green and blue.

    Returns:
        (H, W, 3)
    """
    shown = x[list(bands)].transpose(1, 2, 0)
    return np.asarray(((shown / BRIGHTEST + 1) * 127.5).clip(0, 255), np.uint8)


def draw_classes(ids: NDArray[np.integer], card: Card) -> NDArray[np.uint8]:
    """Return (H, W, 3) colours of (H, W) class positions, gray where there is none."""
    colors = np.array([c.rgb for c in card.classes] + [(GRAY,) * 3], np.uint8)
    return np.asarray(colors[np.minimum(ids, len(card.classes))])


def save_samples(path: Path, rows: Sequence[Sequence[NDArray[np.uint8]]]) -> None:
    """Write pictures of one size in rows and columns to a PNG.

    Raises:
        OutputError: if it cannot be written.
    """
    pictures = np.stack([picture for row in rows for picture in row])
    shape = len(rows), len(rows[0])
    whole = montage(pictures, grid_shape=shape, padding_width=GAP, fill=(255,) * 3, channel_axis=3)
    with whole_file(path) as written:
        imsave(written, whole, check_contrast=False)
