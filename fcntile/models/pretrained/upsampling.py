"""The upsampling of an FCN's file: bilinear kernels that a net has anyway, or learned ones."""

import torch
from torch import Tensor

from fcntile.errors import ModelError
from fcntile.models.pretrained.description import Pretrained
from fcntile.models.upsampling import bilinear_kernel

SIDES = {"fcn32s": [64], "fcn16s": [4, 32], "fcn8s": [4, 4, 16]}
# what frameworks call the layers before the last one
NAMES = {
    "upscore2": "upscore2",
    "score2": "upscore2",
    "upscore_pool4": "upscore_pool4",
    "score4": "upscore_pool4",
}
TOLERANCE = 1e-4


def learned_upsampling(arch: str, given: Pretrained) -> dict[str, Tensor]:
    """Return the upsampling kernels of a file by neutral name; none if all are bilinear.

    Caffe's kernels are dense, (classes, classes, side, side), and as published zero between
    different classes.

    Raises:
        ModelError: if they are not those of the net, or one cannot be told from another.
    """
    sides = sorted(kernel.shape[-1] for kernel in given.upsampling.values())
    if sides != SIDES[arch]:
        raise ModelError(
            f"{given.source} has upsampling kernels of {sides or 'no'} px, {arch} has {SIDES[arch]}"
        )
    dense = {layer: _dense(kernel) for layer, kernel in given.upsampling.items()}
    if all((kernel - _bilinear(kernel)).abs().max() <= TOLERANCE for kernel in dense.values()):
        return {}
    found = {}
    for layer, kernel in dense.items():
        name = "upscore" if kernel.shape[-1] == sides[-1] else NAMES.get(layer)
        if name is None:
            raise ModelError(
                f"layer {layer} of {given.source} is not bilinear, and which of {arch}'s layers it "
                f"is cannot be told: call it {' or '.join(dict.fromkeys(NAMES.values()))}"
            )
        found[f"{name}.weight"] = kernel
    return found


def _dense(kernel: Tensor) -> Tensor:
    """Return kernels between all classes; a depthwise one has none between different ones."""
    classes, others, *_ = kernel.shape
    if others == 1 < classes:
        return torch.eye(classes)[:, :, None, None] * kernel
    return kernel


def _bilinear(kernel: Tensor) -> Tensor:
    """Return bilinear kernels of the shape of a file's."""
    return torch.eye(len(kernel))[:, :, None, None] * bilinear_kernel(kernel.shape[-1] // 2)
