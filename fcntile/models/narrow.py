"""Layers that torch computes slowly on few channels, on CPUs: the same values, bit by bit."""

from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW = 64  # channels; with more, torch's own are as fast


class NarrowMaxPool(nn.Module):
    """Max pooling by 2 as maxima of rows and columns: torch also notes where each maximum was.

    Shape:
        (N, channels, H, W) -> (N, channels, H // 2, W // 2)
    """

    @staticmethod
    def suits(layer: nn.Module) -> TypeGuard[nn.MaxPool2d]:
        """Return whether a layer is such a pooling."""
        return (
            isinstance(layer, nn.MaxPool2d)
            and type(layer).forward is nn.MaxPool2d.forward
            and layer.kernel_size in (2, (2, 2))
            and layer.stride in (2, (2, 2))
            and layer.padding in (0, (0, 0))
            and layer.dilation in (1, (1, 1))
            and not (layer.return_indices or layer.ceil_mode)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the smaller map."""
        if x.shape[1] > FEW:
            return F.max_pool2d(x, 2)
        height, width = (side // 2 * 2 for side in x.shape[2:])
        rows = torch.maximum(x[..., :height:2, :], x[..., 1:height:2, :])
        return torch.maximum(rows[..., :width:2], rows[..., 1:width:2])


class NarrowUpsample(nn.Module):
    """Interpolation that gives few channels one after the other, as class scores are wanted.

    Args:
        layer: the interpolation.

    Shape:
        (N, channels, H, W) -> (N, channels, scale_factor * H, scale_factor * W)
    """

    def __init__(self, layer: nn.Upsample) -> None:
        super().__init__()
        self.layer = layer

    @staticmethod
    def suits(layer: nn.Module) -> TypeGuard[nn.Upsample]:
        """Return whether a layer is a bilinear interpolation."""
        return isinstance(layer, nn.Upsample) and layer.mode == "bilinear"

    def forward(self, x: Tensor) -> Tensor:
        """Return the larger map."""
        larger: Tensor = self.layer(x.contiguous() if x.shape[1] < FEW else x)
        return larger
