"""What each source of VGG16 was fed: the order of channels, and the mean and deviation.

Keras, tensorflow-vgg and the classic file: blue, green, red minus (103.939, 116.779, 123.68).
Caffe, and its nets as torch has them: the same order minus (104.00698793, 116.66876762,
122.67891434), as shelhamer/fcn.berkeleyvision.org does. MatConvNet: red, green, blue minus the
`averageImage` of the file. torchvision: red, green, blue from 0 to 1, minus (.485, .456, .406), by
(.229, .224, .225); but its copy of amdegroot's SSD features minus (.48235, .45882, .40784), by
1/255: that file's classifier is NaN, which is how it is recognised.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fcntile.errors import ModelError
from fcntile.models.card import Band
from fcntile.models.pretrained.arrays import Arrays
from fcntile.models.pretrained.description import colour_bands
from fcntile.models.pretrained.published import authors_order

# means are (red, green, blue) in the units of a uint8 raster
KERAS_MEAN = (123.68, 116.779, 103.939)
CAFFE_MEAN = (122.67891434, 116.66876762, 104.00698793)
SSD_MEAN = (0.48235 * 255, 0.45882 * 255, 0.40784 * 255)
TORCH_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
TORCH_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
SPREAD = 58.0  # of natural images in uint8, about: the mean of TORCH_STD is 57.6


@dataclass(frozen=True)
class Convention:
    """What weights were trained on.

    Args:
        source: whose they are, for people.
        order: of the channels of conv1_1, "RGB" or "BGR".
        bands: red, green, blue with mean and deviation.
        spread: deviation of natural images after normalisation.
    """

    source: str
    order: str
    bands: tuple[Band, ...]
    spread: float = SPREAD


CONVENTIONS = {
    "classic": Convention("Keras, classic", "BGR", colour_bands(KERAS_MEAN)),
    "keras": Convention("Keras", "BGR", colour_bands(KERAS_MEAN)),
    "numpy": Convention("tensorflow-vgg", "BGR", colour_bands(KERAS_MEAN)),
    "caffe": Convention("Caffe", "BGR", colour_bands(CAFFE_MEAN)),
    "torch": Convention("torch, from Caffe", "BGR", colour_bands(CAFFE_MEAN)),
}
TORCHVISION = Convention("torchvision", "RGB", colour_bands(TORCH_MEAN, TORCH_STD), 1.0)
SSD = Convention("torchvision, from SSD", "RGB", colour_bands(SSD_MEAN))


def find_convention(
    path: Path, scheme: str, arrays: Arrays, weights: Mapping[str, Tensor]
) -> Convention:
    """Return what the weights of a file were trained on.

    Args:
        path: of the file.
        scheme: of the names in it.
        arrays: what it holds.
        weights: the same by neutral name, laid out as torch does.

    Raises:
        ModelError: if the file does not say its mean, or is a spoilt copy of published weights.
    """
    order = authors_order(weights["conv1_1.weight"], weights["conv1_1.bias"])
    if arrays.framework == "matconvnet":
        if arrays.mean is None:
            raise ModelError(
                f"{path} has no meta.normalization.averageImage, so its mean is unknown"
            )
        red, green, blue = arrays.mean
        return Convention("MatConvNet", "RGB", colour_bands((red, green, blue)))
    if scheme == "torchvision":
        if "conv6.weight" in weights and weights["conv6.weight"].isnan().any():
            return SSD
        if order is None:
            return TORCHVISION
        return Convention("torch, from Caffe", order, colour_bands(CAFFE_MEAN))
    convention = CONVENTIONS[arrays.framework]
    if order is not None and order != convention.order:
        raise ModelError(
            f"{path} has the published VGG16 with its channels in the order {order}, which files "
            f"of {convention.source} do not have: use another copy"
        )
    return convention
