"""Layers that torch computes slowly on few channels, on CPUs."""

from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcntile.models.upsampling import BilinearDeconvolution, bilinear_kernel

FEW = 64  # channels; with more, torch's own are as fast


class NarrowMaxPool(nn.Module):
    """Max pooling by 2 as maxima of rows and columns: torch also notes where each maximum was.

    The values are the same bit by bit.

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
    """Bilinear interpolation of few channels: along rows, then along columns, channel by channel.

    Args:
        layer: that interpolates; what it gives is the same but for rounding.

    Shape:
        (N, channels, H, W) -> (N, channels, factor * H, factor * W)
    """

    def __init__(self, layer: nn.Upsample | BilinearDeconvolution) -> None:
        super().__init__()
        self.layer, self.factor = layer, _factor(layer)
        # what the first and last value are blended with at the rim: themselves, or nothing
        self.fades = isinstance(layer, BilinearDeconvolution)

    @staticmethod
    def suits(layer: nn.Module) -> TypeGuard[nn.Upsample | BilinearDeconvolution]:
        """Return whether a layer interpolates so, with half-pixel centres, by a whole factor."""
        if isinstance(layer, BilinearDeconvolution):
            factor = _factor(layer)
            return (
                type(layer).forward is nn.ConvTranspose2d.forward
                and layer.groups == layer.in_channels
                and layer.padding == (factor // 2, factor // 2)
                and factor % 2 == 0
                and bool((layer.weight == bilinear_kernel(factor)).all())
            )
        return (
            isinstance(layer, nn.Upsample)
            and type(layer).forward is nn.Upsample.forward
            and layer.mode == "bilinear"
            and not layer.align_corners
            and isinstance(layer.scale_factor, float)
            and layer.scale_factor.is_integer()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the larger map."""
        if x.shape[1] >= FEW:
            larger: Tensor = self.layer(x)
            return larger
        return self._enlarge(self._enlarge(x.contiguous(), 3), 2)

    def _enlarge(self, x: Tensor, dim: int) -> Tensor:
        """Put `factor` values where one was: each blended with the neighbour it is nearer to."""
        others = x.shape[dim] - 1
        larger = x.new_empty(*x.shape[: dim + 1], self.factor, *x.shape[dim + 1 :])
        for i in range(self.factor):
            to = larger.select(dim + 1, i)
            shift = (i + 0.5) / self.factor - 0.5  # from where the value was, -0.5 to 0.5
            first, neighbour, rim = (1, 0, 0) if shift < 0 else (0, 1, others)
            torch.lerp(
                x.narrow(dim, first, others),
                x.narrow(dim, neighbour, others),
                abs(shift),
                out=to.narrow(dim, first, others),
            )
            end = x.narrow(dim, rim, 1)
            to.narrow(dim, rim, 1).copy_(end * (1 - abs(shift)) if self.fades else end)
        return larger.flatten(dim, dim + 1)


def _factor(layer: nn.Upsample | BilinearDeconvolution) -> int:
    factor = layer.scale_factor if isinstance(layer, nn.Upsample) else layer.stride[0]
    assert isinstance(factor, int | float), "of both directions"
    return int(factor)
