"""Ways to make feature maps larger, one small layer each.

A convolution of kernel k, stride s and padding p turns i positions into (i + 2p - k) / s + 1; its
transpose turns that round, and gives o = s (i - 1) + a + k - 2p positions, where 0 <= a < s of them
are added at the end (Dumoulin and Visin, *A guide to convolution arithmetic*, arXiv 1603.07285,
relationship 14). With k = 2s and p = s / 2 that is o = s i, and every output sees as many inputs:
no checkerboard (Odena et al., 2016, doi 10.23915/distill.00003).

What each of them does is measured in docs/upsampling.md.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Repeat(nn.Upsample):
    """Copy each value `factor` x `factor` times: Keras' `UpSampling2D`.

    Shape:
        (N, channels, H, W) -> (N, channels, factor * H, factor * W)
    """

    def __init__(self, factor: int) -> None:
        super().__init__(scale_factor=float(factor), mode="nearest")


class Bilinear(nn.Upsample):
    """Interpolate with half-pixel centres; at the rim the last value goes on.

    Shape:
        (N, channels, H, W) -> (N, channels, factor * H, factor * W)
    """

    def __init__(self, factor: int) -> None:
        super().__init__(scale_factor=float(factor), mode="bilinear", align_corners=False)


class ZeroFill(nn.Module):
    """Put each value in the upper left corner of `factor` x `factor` zeros.

    Shape:
        (N, channels, H, W) -> (N, channels, factor * H, factor * W)
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Return the larger map."""
        n, channels, height, width = x.shape
        zeros = self.factor - 1
        cells = F.pad(x.reshape(n, channels, height, 1, width, 1), (0, zeros, 0, 0, 0, zeros))
        return cells.reshape(n, channels, height * self.factor, width * self.factor)

    def extra_repr(self) -> str:
        """Return what `print` shows in the brackets."""
        return str(self.factor)


class SwitchUnpooling(nn.MaxUnpool2d):
    """Put each value where the maximum was, in zeros: undo a max pooling by 2.

    Zeiler and Fergus (arXiv 1311.2901) call the places switches; so does DeconvNet. There must be
    as many channels as were pooled.

    Shape:
        (N, channels, H, W) and their indices -> (N, channels, 2 * H, 2 * W)
    """

    def __init__(self) -> None:
        super().__init__(2)


class BilinearDeconvolution(nn.ConvTranspose2d):
    """A transposed convolution that starts as bilinear interpolation of each channel.

    The kernel is that of the FCN reference implementation (`surgery.py`): 2 * `factor` wide, a
    triangle in each direction. Away from the rim that equals interpolation with half-pixel centres;
    within `factor` pixels of the rim it fades to zero.

    Frozen it is depthwise: kernels between different channels would stay zero. Learned it has them
    all, as the Caffe nets do.

    Args:
        channels: of input and output.
        factor: of height and width.
        learned: whether training changes it.
        padding: pixels cut off each side of the output; half the factor keeps the output at
            `factor` times the input, 0 is the Caffe nets', which crop later.

    Shape:
        (N, channels, H, W) -> (N, channels, factor * (H + 1) - 2 * padding, likewise W)
    """

    def __init__(
        self, channels: int, factor: int, *, learned: bool = False, padding: int | None = None
    ) -> None:
        super().__init__(
            channels,
            channels,
            2 * factor,
            stride=factor,
            padding=factor // 2 if padding is None else padding,
            groups=1 if learned else channels,
            bias=False,
        )
        set_kernels(self, bilinear_kernel(factor))
        self.weight.requires_grad_(learned)


class SubPixel(nn.Sequential):
    """A 3 x 3 convolution, whose channels become the pixels of one cell.

    Shi et al., arXiv 1609.05158.

    Shape:
        (N, inputs, H, W) -> (N, outputs, factor * H, factor * W)
    """

    def __init__(self, inputs: int, outputs: int, factor: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs * factor * factor, 3, padding=1)
        self.shuffle = nn.PixelShuffle(factor)


class Crop(nn.Module):
    """Cut a map to the height and width of another, from `offset` on in both directions.

    Shape:
        (N, channels, H, W) and (..., h, w) -> (N, channels, h, w)
    """

    def __init__(self, offset: int) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """Return the part of `x`."""
        height, width = like.shape[-2:]
        return x[..., self.offset : self.offset + height, self.offset : self.offset + width]

    def extra_repr(self) -> str:
        """Return what `print` shows in the brackets."""
        return str(self.offset)


class Complete(nn.Module):
    """Add zeros at the right and below, up to a smallest height and width.

    Shape:
        (N, channels, H, W) -> (N, channels, max(H, size), max(W, size))
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Return the map, completed."""
        height, width = x.shape[-2:]
        return F.pad(x, (0, max(0, self.size - width), 0, max(0, self.size - height)))

    def extra_repr(self) -> str:
        """Return what `print` shows in the brackets."""
        return str(self.size)


def bilinear_kernel(factor: int) -> Tensor:
    """Return the (2 * factor, 2 * factor) kernel of bilinear upsampling.

    >>> bilinear_kernel(2)[1] * 0.75**-1
    tensor([0.2500, 0.7500, 0.7500, 0.2500])
    """
    # on the CPU also for a net without memory, whose arithmetic imports torch's compiler for 1 s
    triangle = 1 - (torch.arange(2 * factor, device="cpu") - (factor - 0.5)).abs() / factor
    return torch.outer(triangle, triangle)


def set_kernels(layer: nn.ConvTranspose2d, kernel: Tensor) -> None:
    """Give each channel one kernel, and none to what goes between channels."""
    if layer.weight.is_meta:  # a net without memory gets its kernels with its weights
        return
    with torch.no_grad():
        layer.weight.zero_()
        own = range(layer.in_channels)
        layer.weight[own, 0 if layer.groups > 1 else own] = kernel


UPSAMPLINGS = ("frozen", "learned", "bilinear", "repeat", "zero-fill", "subpixel")


def make_upsampling(kind: str, channels: int, factor: int) -> nn.Module:
    """Return a layer that enlarges maps without changing their number.

    Args:
        kind: one of `UPSAMPLINGS`: "frozen" and "learned" are `BilinearDeconvolution`.
        channels: of input and output.
        factor: of height and width.

    Raises:
        ValueError: if there is no such kind.
    """
    if kind in ("frozen", "learned"):
        return BilinearDeconvolution(channels, factor, learned=kind == "learned")
    if kind == "bilinear":
        return Bilinear(factor)
    if kind == "repeat":
        return Repeat(factor)
    if kind == "zero-fill":
        return ZeroFill(factor)
    if kind == "subpixel":
        return SubPixel(channels, channels, factor)
    raise ValueError(f"upsampling {kind!r} is none of {', '.join(UPSAMPLINGS)}")
