"""Make the rows of a junction of the halves that the windows around it have left."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fcntile.inference.blend import Half, Rows, check_finite, taper, to_numpy, without_data
from fcntile.inference.devices import out_of_memory
from fcntile.inference.products import Product, Threshold, reduce

COLUMNS = 2048  # that are joined at a time


def join(
    upper: Half,
    lower: Sequence[Half],
    products: Sequence[Product],
    device: torch.device,
    threshold: Threshold | None = None,
) -> Rows:
    """Return the rows of a junction of which the windows around it have left their halves.

    Args:
        upper: of the window above it.
        lower: of the windows below it, from left to right.
        products: what is wanted of the logits.
        device: where arithmetic is done.
        threshold: of one class in the mask.

    Raises:
        ModelError: if a logit is infinite or not a number.
    """
    made, first = [], 0
    for half in lower:
        assert half.wanted is not None
        stop = first + half.wanted.shape[1]
        above = None if upper.logits is None else upper.logits[:, :, first:stop]
        made.append(_join(above, half.logits, half.wanted, products, device, threshold))
        first = stop
    return [np.concatenate(rows, axis=2) for rows in zip(*made, strict=True)]


def _join(
    upper: NDArray[np.float32] | None,
    lower: NDArray[np.float32] | None,
    wanted: NDArray[np.bool_],
    products: Sequence[Product],
    device: torch.device,
    threshold: Threshold | None,
) -> Rows:
    rows = without_data(products, wanted.shape)
    if upper is None or lower is None:
        return rows
    up = taper(len(wanted)).to(device)[:, None]
    for first in range(0, wanted.shape[1], COLUMNS):
        here = (..., slice(first, first + COLUMNS))
        with out_of_memory(device, "the rows where parts meet", "use a smaller --overlap"):
            above, below, shown = (
                torch.tensor(array[here], device=device) for array in (upper, lower, wanted)
            )
            best, made = reduce(torch.lerp(above, below, up), products, threshold)
            check_finite(best.sum().item(), "where the parts of two workers meet")
            for array, values, product in zip(rows, made, products, strict=True):
                array[here] = to_numpy(values.masked_fill(~shown, product.nodata))
    return rows
