"""Does an FCN's file upsample as fcntile's nets do, bilinearly and each class by itself?"""

import torch
from torch import Tensor

from fcntile.errors import ModelError
from fcntile.models.fcn import bilinear_upsampling
from fcntile.models.pretrained.description import Pretrained

SIDES = {"fcn32s": [64], "fcn16s": [4, 32], "fcn8s": [4, 4, 16]}
TOLERANCE = 1e-4


def check_upsampling(arch: str, given: Pretrained) -> None:
    """Raise ModelError unless all kernels of a file are those that the net has anyway.

    Caffe's kernels are dense, (classes, classes, side, side), and of the right net zero between
    different classes.
    """
    sides = sorted(kernel.shape[-1] for kernel in given.upsampling.values())
    if sides != SIDES[arch]:
        raise ModelError(
            f"{given.source} has upsampling kernels of {sides or 'no'} px, {arch} has {SIDES[arch]}"
        )
    for layer, kernel in given.upsampling.items():
        if (kernel - _bilinear(kernel)).abs().max() > TOLERANCE:
            raise ModelError(
                f"layer {layer} of {given.source} is not bilinear: fcntile's nets have no learned "
                "upsampling; use the file with fcntile train --init-weights"
            )


def _bilinear(kernel: Tensor) -> Tensor:
    """Return bilinear kernels of the shape of a file's."""
    classes, others, side, _ = kernel.shape
    one = bilinear_upsampling(1, side // 2).weight.detach()[0, 0]
    if others == 1 < classes:
        return one.expand_as(kernel)
    return torch.eye(classes)[:, :, None, None] * one
