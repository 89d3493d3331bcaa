"""ResNet-50 in torchvision's names, which fcntile's ResNet nets share but for the scores."""

from pathlib import Path

from fcntile.errors import ModelError
from fcntile.models.pretrained.arrays import Arrays
from fcntile.models.pretrained.conventions import TORCHVISION
from fcntile.models.pretrained.description import Pretrained

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
        ModelError: if there is a ResNet that is not ResNet-50.
    """
    weights = dict(arrays.tensors)
    if "layer1.0.conv1.weight" not in weights:
        return None
    found = tuple(
        len({name.split(".")[1] for name in weights if name.startswith(f"layer{i}.")})
        for i in range(1, 5)
    )
    fits = all(name in weights and weights[name].shape == SHAPES[name] for name in SHAPES)
    if found != BLOCKS or not fits:
        raise ModelError(f"{path} is a ResNet of {found} blocks, but not ResNet-50, {BLOCKS}")
    if wrong := [name for name, weight in weights.items() if not weight.isfinite().all()]:
        raise ModelError(f"{path} is damaged: {wrong[0]} has values that are not finite")
    if "fc.weight" in weights:
        weights["score.weight"] = weights.pop("fc.weight")[:, :, None, None]
        weights["score.bias"] = weights.pop("fc.bias")
    return Pretrained(
        f"ResNet-50 of {TORCHVISION.source}", weights, TORCHVISION.bands, TORCHVISION.spread
    )
