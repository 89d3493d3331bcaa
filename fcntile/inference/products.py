"""What is kept of the logits of a pixel: the class, probabilities, how sure the net is.

| product | bands | floating point | uint8 |
|---|---|---|---|
| mask | 1 | | values of the classes |
| probabilities | one a class | softmax, 0 to 1 | `1 + round(254 p)`, 0 is nodata |
| confidence | 1 | largest probability | likewise |
| entropy | 1 | -sum p ln p / ln(classes), 0 to 1 | likewise |
| logits | one a class | as they are | |

Probabilities are those of the blended logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Positions where there is no data: all bits set, so 255, or 65535 once int16 is read as uint16.
# (torch's own uint16 has no arithmetic.)
NO_POSITION = {torch.uint8: 255, torch.int16: -1}
VECTOR = 64  # numbers; four of the longest vectors, as sums take
LEVELS = 254  # steps of a probability in uint8, from 1 to 255


@dataclass(frozen=True)
class Product:
    """One output.

    Args:
        name: "mask", "probabilities", "confidence", "entropy" or "logits".
        bands: of it.
        dtype: as it leaves the device.
        nodata: where there is no data.
        is_half: whether its numbers are those of float16.
    """

    name: str
    bands: int
    dtype: torch.dtype
    nodata: float
    is_half: bool = False


@dataclass(frozen=True)
class Threshold:
    """From which probability on a pixel is of one class, whatever the others have.

    Args:
        position: of the class.
        probability: at least so much; from 0 to 1.
    """

    position: int
    probability: float


def position_dtype(classes: int) -> torch.dtype:
    """Return the smallest dtype with a number for each class and one for no data."""
    return torch.uint8 if classes <= NO_POSITION[torch.uint8] else torch.int16


def make_products(names: Sequence[str], classes: int, dtype: str) -> list[Product]:
    """Return the mask, and the products of these names.

    Args:
        names: of products.
        classes: of the model.
        dtype: of products but the mask: "uint8", "float16" or "float32".
    """
    positions = position_dtype(classes)
    mask = Product("mask", 1, positions, NO_POSITION[positions])
    made = [mask]
    for name in names:
        bands = classes if name in ("probabilities", "logits") else 1
        is_float = dtype != "uint8" or name == "logits"
        nodata = float("nan") if is_float else 0
        kept = torch.float32 if is_float else torch.uint8
        made.append(Product(name, bands, kept, nodata, is_half=dtype == "float16"))
    return made


def reduce(
    logits: Tensor, products: Sequence[Product], threshold: Threshold | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Return the largest logits, and the products.

    Shape:
        (classes, H, W) -> (H, W), and (bands, H, W) of each product in its dtype
    """
    best, positions = best_class(logits)
    if len(products) == 1 and threshold is None:
        return best, [positions[None]]
    p = _in_whole_vectors(logits).softmax(0)
    flat = _in_whole_vectors(positions)
    if threshold is not None:
        flat = _above_threshold(p, flat, threshold)
    made = []
    for product in products:
        if product.name == "mask":
            value = flat[None]
        elif product.name == "probabilities":
            value = p
        elif product.name == "confidence":
            value = p.amax(0, keepdim=True)
        elif product.name == "entropy":
            value = _entropy(p)
        else:
            value = logits.flatten(1)
        if product.dtype == torch.uint8 and product.name != "mask":
            value = quantise(value)
        value = value.half().float() if product.is_half else value
        made.append(value[:, : best.numel()].view(product.bands, *best.shape))
    return best, made


def _in_whole_vectors(rows: Tensor) -> Tensor:
    """Return (..., H, W) as (..., pixels), completed by zeros.

    What is left over after the last whole vector, CPUs compute one by one, and exponentials and
    logarithms have other last bits then: a pixel's must not depend on how many there are.
    """
    flat = rows.flatten(-2)
    return nn.functional.pad(flat, (0, -flat.shape[-1] % VECTOR))


def best_class(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the highest logit of each pixel and its position, the first one among equals.

    On CPUs torch's own argmax and max are several times slower than this running maximum, which
    compares into floats, as that takes whole vectors and bytes do not.

    Shape:
        (classes, H, W) -> (H, W), (H, W) of `position_dtype`
    """
    dtype = position_dtype(len(logits))
    if logits.device.type != "cpu" or len(logits) == 1:
        best, positions = logits.max(0)
        return best, positions.to(dtype)
    best = torch.maximum(logits[0], logits[1])
    positions, higher = torch.empty_like(best), torch.empty_like(best)
    torch.gt(logits[1], logits[0], out=positions)
    for k, other in enumerate(logits[2:], 2):
        torch.gt(other, best, out=higher)
        torch.maximum(positions, higher.mul_(k), out=positions)
        torch.maximum(best, other, out=best)
    return best, positions.to(dtype)


def quantise(p: Tensor) -> Tensor:
    """Return numbers from 0 to 1 as uint8 from 1 to 255, rounded to the nearest of 255 levels.

    >>> quantise(torch.tensor([0.0, 0.5, 1.0])).tolist()
    [1, 128, 255]
    """
    return p.mul(LEVELS).round_().add_(1).to(torch.uint8)


def _entropy(p: Tensor) -> Tensor:
    """Return the entropy of (classes, H, W) probabilities as a share of the largest one."""
    if len(p) == 1:
        return torch.zeros_like(p)
    largest = torch.log(torch.tensor(float(len(p)))).item()  # nothing to be copied
    share: Tensor = torch.special.entr(p).sum(0, keepdim=True) / largest
    return share.clamp_(0, 1)


def _above_threshold(p: Tensor, positions: Tensor, threshold: Threshold) -> Tensor:
    """Return one class where it is probable enough, elsewhere the best one of the others."""
    others = p.clone()
    others[threshold.position] = -1
    best = positions.where(positions != threshold.position, best_class(others)[1])
    is_it = p[threshold.position] >= threshold.probability
    above: Tensor = torch.where(is_it, threshold.position, best).to(positions.dtype)
    return above
