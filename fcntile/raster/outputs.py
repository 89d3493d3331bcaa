"""The files that a run makes: what is in their bands."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcntile.raster.classes import NO_LABEL, UNLABELLED

Classes = Sequence[tuple[int, str, tuple[int, int, int]]]  # value, name, (red, green, blue)

NODATA = {"uint8": NO_LABEL, "uint16": UNLABELLED}  # of masks, by their dtype


@dataclass(frozen=True)
class Output:
    """One file.

    Args:
        name: of what it holds; of the files of its parts, too.
        path: where it goes.
        dtype: "uint8", "uint16" or "float32".
        nodata: of its bands.
        bands: their descriptions.
        tags: what to record about its making.
        classes: of a mask; empty for other things.
        scale: of a number in the band to what it means, with `offset`.
        offset: what 0 in the band means.
        is_half: whether a float32 is stored in 16 bits.
    """

    name: str
    path: Path
    dtype: str
    nodata: float
    bands: tuple[str, ...]
    tags: Mapping[str, str]
    classes: Classes = ()
    scale: float = 1
    offset: float = 0
    is_half: bool = False

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a pixel in memory."""
        return len(self.bands) * np.dtype(self.dtype).itemsize


def mask_dtype(values: Iterable[int]) -> str:
    """Return the dtype of a mask with these class values.

    >>> mask_dtype([0, 254]), mask_dtype([0, 255])
    ('uint8', 'uint16')
    """
    return "uint8" if max(values) < NODATA["uint8"] else "uint16"


def class_values(positions: NDArray[Any], values: Sequence[int]) -> NDArray[Any]:
    """Return the mask of positions: the value of each one's class, or the mask's nodata.

    Args:
        positions: (..., width) uint8 or uint16, the largest number of which is no data.
        values: of the classes, by position.

    Returns:
        (..., width) in the `mask_dtype` of the values; the same array if it is that already.
    """
    if list(values) == list(range(len(values))):
        return positions
    dtype = mask_dtype(values)
    table = np.full(np.iinfo(positions.dtype).max + 1, NODATA[dtype], dtype)
    table[: len(values)] = values
    mask = np.empty(positions.shape, dtype)
    width = positions.shape[-1]
    rows = zip(positions.reshape(-1, width), mask.reshape(-1, width), strict=True)
    for row, out in rows:  # numpy widens indices to 8 bytes each
        table.take(row, out=out, mode="clip")
    return mask
