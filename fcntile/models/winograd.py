"""Convolutions with fewer multiplications, for CPUs.

Winograd's minimal filtering (Lavin and Gray, *Fast Algorithms for Convolutional Neural Networks*,
arXiv 1509.09308): the image is cut into cells of m x m outputs, cells and kernels are transformed,
and what was a convolution is one matrix product for each of the n x n values of a cell, n = m + r -
1. A kernel of 3 x 3 takes 36 / 16 multiplications per output and channel instead of 9, one of 7 x 7
takes 64 / 4 instead of 49.
"""

from collections.abc import Sequence
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Outputs of a cell in each direction, and the points that its polynomials are evaluated at (and at
# infinity): those of the least rounding error of several tried.
CELLS = {3: (4, (0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)), 7: (2, (0, 1, -1, 2, -2, 1 / 2, -1 / 2))}
LEAST = 128  # channels, in and out: with fewer, the transforms cost more than they save
AT_ONCE = 128  # cells: their transforms should stay in the cache
BLOCK = 512  # outputs of a product: MKL copies longer rows of weights slowly


class Winograd(nn.Module):
    """The function of an `nn.Conv2d` that `suits`.

    In float32 its rounding error is larger than the direct sum's, about 4 times for 3 x 3 kernels
    and 10 times for 7 x 7: at most 1e-5 and 5e-5 of the outputs' deviation (130 channels).

    Args:
        conv: the layer; its weights are transformed into others, 4 and 1.3 times as large.

    Shape:
        (N, inputs, H, W) -> (N, outputs, H + 2 padding - r + 1, likewise W), channels last
    """

    data: Tensor
    inverse: Tensor
    weight: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self._kernel, self._padding = conv.kernel_size[0], int(conv.padding[0])
        self._step, points = CELLS[self._kernel]
        inverse, kernel, data = transforms(self._step, self._kernel, points)
        self.register_buffer("data", data.float())
        self.register_buffer("inverse", inverse.float())
        self.register_buffer("weight", _transform(conv.weight, kernel))
        self.register_buffer("bias", conv.bias)

    @staticmethod
    def suits(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
        """Return whether a layer can be computed so, and would gain by it."""
        return (
            isinstance(layer, nn.Conv2d)
            and type(layer).forward is nn.Conv2d.forward
            and layer.kernel_size in ((3, 3), (7, 7))
            and layer.stride == layer.dilation == (1, 1)
            and isinstance(layer.padding, tuple)
            and layer.padding[0] == layer.padding[1] < layer.kernel_size[0]
            and layer.padding_mode == "zeros"
            and layer.groups == 1
            and min(layer.in_channels, layer.out_channels) >= LEAST
        )

    @staticmethod
    def growth(kernel: int) -> float:
        """Return how many times as large the transformed weights of a kernel are."""
        return ((CELLS[kernel][0] + kernel - 1) / kernel) ** 2

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution."""
        m, r, p = self._step, self._kernel, self._padding
        n, (batch, channels, height, width) = m + r - 1, x.shape
        height, width = height + 2 * p - r + 1, width + 2 * p - r + 1  # of the output
        rows, columns = -(-height // m), -(-width // m)
        rim = (p, columns * m - width + p, p, rows * m - height + p)
        x = F.pad(x, rim).permute(0, 2, 3, 1).contiguous()
        image, row, column, _ = x.stride()
        cells = x.as_strided(
            (n, n, batch, rows, columns, channels),
            (row, column, image, m * row, m * column, 1),
        )
        weights = self.weight.view(-1, n * n, *self.weight.shape[1:])  # of blocks of outputs
        size = self.weight.shape[2]
        out = x.new_empty(batch, rows, m, columns, m, len(weights), size)
        some = max(1, AT_ONCE // (batch * columns))
        for i in range(0, rows, some):
            part = cells[:, :, :, i : i + some]
            values = (self.data @ part.reshape(n * n, -1)).view(n * n, -1, channels)
            for block, weight in enumerate(weights):
                sums = torch.bmm(values, weight).flatten(1)
                found = (self.inverse @ sums).view(m, m, *part.shape[2:5], size)
                if self.bias is not None:
                    found += self.bias[block * size : (block + 1) * size]
                out[:, i : i + some, ..., block, :] = found.permute(2, 3, 0, 4, 1, 5)
        return out.view(batch, rows * m, columns * m, -1)[:, :height, :width].permute(0, 3, 1, 2)


def transforms(m: int, r: int, points: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Return what m x m outputs of an r x r kernel take: the matrices of Toom and Cook.

    Polynomials of degree m - 1 and r - 1 are multiplied value by value at n = m + r - 1 points; the
    transposed algorithm filters.

    Args:
        m: outputs in each direction.
        r: taps in each direction.
        points: n - 1 different numbers; the last point is infinity.

    Returns:
        (m * m, n * n), (n * n, r * r) and (n * n, n * n) float64: of the products, of the kernel
        and of the data.
    """
    powers = torch.tensor(points, dtype=torch.float64)[:, None] ** torch.arange(m + r - 1)

    def values(degree: int) -> Tensor:
        leading = torch.eye(degree, dtype=torch.float64)[-1:]
        return torch.cat([powers[:, :degree], leading])

    one = values(m).T, values(r), torch.linalg.inv(values(m + r - 1)).T
    inverse, kernel, data = (torch.kron(matrix, matrix) for matrix in one)
    return inverse, kernel, data


def _transform(weight: Tensor, kernel: Tensor) -> Tensor:
    """Return weights (outputs, inputs, r, r) transformed, in blocks of some outputs.

    Laid out (blocks * n * n, inputs, some) float32: what has four axes, a net turns when it goes
    channels last.
    """
    outputs, inputs = weight.shape[:2]
    size = BLOCK if outputs % BLOCK == 0 else outputs
    made = torch.empty(outputs // size, len(kernel), inputs, size)
    for i in range(0, outputs, 64):  # a few at a time: they are transformed in float64
        some = weight[i : i + 64].transpose(0, 1).reshape(-1, kernel.shape[1]).double()
        block, first = divmod(i, size)
        made[block, :, :, first : first + 64] = (kernel @ some.T).view(len(kernel), inputs, -1)
    return made.flatten(0, 1)
