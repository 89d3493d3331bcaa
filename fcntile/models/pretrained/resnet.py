"""ResNet-50 in torchvision's names, which fcntile's ResNet nets share but for the scores."""

from pathlib import Path

from fcntile.errors import ModelError
from fcntile.models.pretrained.arrays import Arrays
from fcntile.models.pretrained.conventions import TORCHVISION
from fcntile.models.pretrained.description import Pretrained
from fcntile.models.pretrained.layouts import LAYOUTS, to_kernel
from fcntile.models.pretrained.shapes import check_shape

BLOCKS = (3, 4, 6, 3)  # bottlenecks in layer1 to layer4
SHAPES = {  # that ResNet-34, wide ResNets and ResNeXts do not have
    "conv1.weight": (64, 3, 7, 7),
    "layer1.0.conv1.weight": (64, 64, 1, 1),
    "layer1.0.conv2.weight": (64, 64, 3, 3),
    "layer4.2.conv3.weight": (2048, 512, 1, 1),
}


def read_resnet(path: Path, arrays: Arrays) -> Pretrained | None:
    """Return the weights of ResNet-50 among arrays; None if there is no ResNet.

    Torchvision's kind has its strides in the 3 x 3 convolutions, and red, green and blue from 0 to
    1, minus (.485, .456, .406), by (.229, .224, .225). Its fc becomes `score`, a 1 x 1 convolution.

    Raises:
        ModelError: if there is a ResNet that is not ResNet-50, or whose fc is no dense layer.
    """
    weights = {
        f"score.{name[3:]}" if name.startswith("fc.") else name: tensor
        for name, tensor in arrays.tensors.items()
        if not name.endswith("num_batches_tracked")  # which no net computes with
    }
    if "layer1.0.conv1.weight" not in weights:
        return None
    found = tuple(
        len({name.split(".")[1] for name in weights if name.startswith(f"layer{i}.")})
        for i in range(1, 5)
    )
    if found != BLOCKS:
        raise ModelError(f"{path} is a ResNet of {found} blocks, but not ResNet-50, {BLOCKS}")
    for name, shape in SHAPES.items():
        check_shape(path, "ResNet-50", weights, name, shape)
    if "score.weight" in weights:
        try:
            weights["score.weight"] = to_kernel(weights["score.weight"], LAYOUTS["torch"])
        except ValueError as error:
            raise ModelError(f"layer fc of {path} is none of ResNet-50: {error}") from error
    return Pretrained(
        f"ResNet-50 of {TORCHVISION.source}", weights, TORCHVISION.bands, TORCHVISION.spread
    )
