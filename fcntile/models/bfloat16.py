"""Layers of a net that computes in bfloat16 on CPUs.

Left to autocast, a convolution rounds its weights, and oneDNN lays them out for its kernels, at
every call. Here both is done once, and the ReLU inside the convolution: on a CPU with tiles of
matrices (AMX) FCN-8s takes 0.6 of the time. Scores are computed in float32: their differences are
what labels hang on.
"""

from typing import TypeGuard

import torch
from torch import Tensor, nn

# Of a ReLU below 0. With 0 oneDNN's gives 0 for what is not a number, and a broken model or raster
# would go unseen.
SLOPE = 1e-30


def has_bfloat16() -> bool:
    """Return whether this CPU, and this build of torch, compute in bfloat16."""
    kernels = torch.ops.mkldnn
    return hasattr(kernels, "_convolution_pointwise") and kernels._is_mkldnn_bf16_supported()


class Packed(nn.Module):
    """The function of an `nn.Conv2d` that `suits`, and of a ReLU after it, in bfloat16.

    Weights are laid out as suits the first input best; any other gives the same function.

    Args:
        conv: the layer.
        rectify: whether a ReLU follows.

    Shape:
        (N, inputs, H, W) -> (N, outputs, ...) bfloat16, channels last
    """

    def __init__(self, conv: nn.Conv2d, *, rectify: bool) -> None:
        super().__init__()
        self._geometry = conv.padding, conv.stride, conv.dilation, conv.groups
        self._after = ("leaky_relu", [SLOPE], "") if rectify else ("none", [], "")
        self._bias = None if conv.bias is None else conv.bias.detach().bfloat16()
        self._given: Tensor | None = conv.weight.detach()
        self._packed: Tensor | None = None

    @staticmethod
    def suits(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
        """Return whether a layer can be computed so, on this machine."""
        return (
            isinstance(layer, nn.Conv2d)
            and type(layer).forward is nn.Conv2d.forward
            and isinstance(layer.padding, tuple)
            and layer.padding_mode == "zeros"
            and has_bfloat16()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution, rectified if so asked."""
        x = x.to(torch.bfloat16, memory_format=torch.channels_last)
        pack, convolve = (
            torch.ops.mkldnn._reorder_convolution_weight,  # torch's compiler uses both
            torch.ops.mkldnn._convolution_pointwise,
        )
        given = self._given
        if self._packed is None:
            assert given is not None, "one of them is there"
            self._packed = pack(given.bfloat16(), *self._geometry, x.shape)
            self._given = None
        made: Tensor = convolve(x, self._packed, self._bias, *self._geometry, *self._after)
        return made


class Exact(nn.Module):
    """A layer that computes in float32 amid others that do not.

    Args:
        layer: the layer.

    Shape:
        as the layer's; float32
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer gives."""
        with torch.autocast("cpu", enabled=False):
            made: Tensor = self.layer(x.float())
        return made
