"""Winograd convolutions against direct sums in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fcntile.models.winograd import BLOCK, CELLS, LEAST, Winograd, transforms

ERROR = {3: 3e-5, 7: 1e-4}  # of the outputs' deviation, by kernel


@pytest.mark.parametrize(("kernel", "padding"), [(3, 0), (3, 1), (3, 2), (7, 0), (7, 3), (7, 6)])
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 17, 22), (2, 7, 9), (1, 64, 160)])
def test_it_is_the_convolution(kernel, padding, shape):
    torch.manual_seed(0)
    n, height, width = shape
    conv = nn.Conv2d(LEAST, LEAST + 2, kernel, padding=padding, bias=padding > 0)
    conv.requires_grad_(False)
    assert Winograd.suits(conv)
    x = torch.randn(n, LEAST, height, width)
    bias = None if conv.bias is None else conv.bias.double()
    expected = F.conv2d(x.double(), conv.weight.double(), bias, padding=padding)
    fast = Winograd(conv)
    for given in (x, x.to(memory_format=torch.channels_last)):
        found = fast(given)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < ERROR[kernel] * expected.std()


@pytest.mark.parametrize("kernel", CELLS)
def test_blocks_of_outputs_come_in_their_order(kernel):
    torch.manual_seed(0)
    conv = nn.Conv2d(LEAST, 2 * BLOCK, kernel, padding=1).requires_grad_(False)
    x = torch.randn(1, LEAST, 17, 12)
    fast = Winograd(conv).to(memory_format=torch.channels_last)
    expected = conv.double()(x.double())
    assert (fast(x) - expected).abs().max() < ERROR[kernel] * expected.std()


@pytest.mark.parametrize("kernel", CELLS)
def test_its_matrices_filter_exactly(kernel):
    m, points = CELLS[kernel]
    inverse, weights, data = transforms(m, kernel, points)
    n = m + kernel - 1
    assert inverse.shape == (m * m, n * n)
    assert weights.shape == (n * n, kernel * kernel)
    torch.manual_seed(0)
    x = torch.randn(n, n, dtype=torch.float64)
    w = torch.randn(kernel, kernel, dtype=torch.float64)
    found = inverse @ ((weights @ w.flatten()) * (data @ x.flatten()))
    assert torch.allclose(found.view(m, m), F.conv2d(x[None, None], w[None, None])[0, 0])


class Shifted(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) + 1


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(LEAST, LEAST, 3, stride=2),
        nn.Conv2d(LEAST, LEAST, 3, dilation=2),
        nn.Conv2d(LEAST, LEAST, 3, groups=2),
        nn.Conv2d(LEAST, LEAST, 3, padding="same"),
        nn.Conv2d(LEAST, LEAST, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(LEAST, LEAST, 3, padding=(1, 0)),
        nn.Conv2d(LEAST, LEAST, (3, 7)),
        nn.Conv2d(LEAST, LEAST, 5),
        nn.Conv2d(LEAST, LEAST - 1, 3),
        nn.ConvTranspose2d(LEAST, LEAST, 3),
        Shifted(LEAST, LEAST, 3),
    ],
)
def test_it_leaves_others_alone(layer):
    assert not Winograd.suits(layer)
