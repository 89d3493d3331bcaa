"""What upsampling layers do, against other ways to compute it."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fcntile.models.upsampling import (
    UPSAMPLINGS,
    Bilinear,
    BilinearDeconvolution,
    Repeat,
    SubPixel,
    SwitchUnpooling,
    ZeroFill,
    bilinear_kernel,
    make_upsampling,
)


@pytest.mark.parametrize("kind", UPSAMPLINGS)
@pytest.mark.parametrize("factor", [2, 4])
def test_every_kind_multiplies_height_and_width(kind, factor):
    layer = make_upsampling(kind, 3, factor)
    assert layer(torch.rand(2, 3, 5, 7)).shape == (2, 3, 5 * factor, 7 * factor)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="'cubic' is none of frozen, learned, bilinear"):
        make_upsampling("cubic", 3, 2)


@settings(deadline=None)
@given(
    *(st.integers(1, 9) for _ in range(2)),
    *(st.integers(1, 4) for _ in range(2)),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_the_size_of_a_transposed_convolution(i, k, s, _, p, a):
    """o = s (i - 1) + a + k - 2p."""
    a, p = min(a, s - 1), min(p, (k - 1) // 2)
    layer = nn.ConvTranspose2d(1, 1, k, stride=s, padding=p, output_padding=a)
    o = s * (i - 1) + a + k - 2 * p
    if o > 0:
        assert layer(torch.rand(1, 1, i, i)).shape == (1, 1, o, o)


def test_the_kernel_is_that_of_the_paper():
    """`surgery.py`: 1 - |i - c| / f with f = (k + 1) // 2 and c = f - 0.5 for even k."""
    for factor in (2, 8, 16, 32):
        k = 2 * factor
        f = (k + 1) // 2
        row = torch.tensor([1 - abs(i - (f - 0.5)) / f for i in range(k)])
        assert torch.allclose(bilinear_kernel(factor), row[:, None] * row[None])


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_deconvolution_starts_as_interpolation_away_from_the_rim(factor, learned):
    x = torch.rand(1, 3, 5, 6)
    ours = BilinearDeconvolution(3, factor, learned=learned)(x)
    theirs = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    inner = (..., slice(factor, -factor), slice(factor, -factor))
    assert ours.shape == theirs.shape
    assert torch.allclose(ours[inner], theirs[inner], atol=1e-6)
    assert not torch.allclose(ours, theirs, atol=1e-2)  # at the rim it fades to zero


def test_frozen_is_depthwise_and_learned_is_dense():
    frozen, learned = (BilinearDeconvolution(21, 8, learned=learned) for learned in (False, True))
    assert frozen.weight.shape == (21, 1, 16, 16)
    assert not frozen.weight.requires_grad
    assert learned.weight.shape == (21, 21, 16, 16)
    assert learned.weight.requires_grad
    x = torch.rand(1, 21, 4, 4)
    assert torch.allclose(frozen(x), learned(x), atol=1e-6)


def test_repeat_and_bilinear_and_zero_fill_by_hand():
    x = torch.tensor([[[[1.0, 5.0]]]])
    assert Repeat(2)(x)[0, 0].tolist() == [[1, 1, 5, 5]] * 2
    assert Bilinear(2)(x)[0, 0].tolist() == [[1, 2, 4, 5]] * 2
    assert ZeroFill(2)(x)[0, 0].tolist() == [[1, 0, 5, 0], [0, 0, 0, 0]]


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_switches_put_maxima_back(seed):
    torch.manual_seed(seed)
    x = torch.randn(1, 2, 4, 6)
    pooled, switches = F.max_pool2d(x, 2, return_indices=True)
    back = SwitchUnpooling()(pooled, switches)
    largest = F.interpolate(pooled, scale_factor=2, mode="nearest")
    assert torch.equal(back, torch.where(x == largest, x, 0))
    assert torch.equal(F.max_pool2d(back.abs(), 2), pooled.abs())


def test_zero_fill_is_a_transposed_convolution_with_a_single_one():
    x = torch.randn(2, 3, 4, 5)
    kernel = torch.zeros(3, 1, 3, 3)
    kernel[..., 0, 0] = 1
    assert torch.equal(ZeroFill(3)(x), F.conv_transpose2d(x, kernel, stride=3, groups=3))


def test_sub_pixel_spreads_the_channels_of_a_cell():
    layer, x = SubPixel(2, 3, 2), torch.randn(1, 2, 4, 5)
    wide, spread = layer.conv(x), layer(x)
    for channel in range(3):
        for row in range(2):
            for column in range(2):
                given = wide[0, 4 * channel + 2 * row + column]
                assert torch.equal(spread[0, channel, row::2, column::2], given)


def as_convolution(layer):
    """Return the ordinary convolution that a transposed convolution of stride 1 is."""
    k, p = layer.kernel_size[0], layer.padding[0]
    same = nn.Conv2d(layer.in_channels, layer.out_channels, k, padding=k - 1 - p)
    same.weight = nn.Parameter(layer.weight.flip(2, 3).transpose(0, 1))
    same.bias = layer.bias
    return same


@settings(deadline=None)
@given(st.sampled_from([1, 3, 5, 7]), st.integers(0, 10_000), st.booleans())
def test_at_stride_1_a_transposed_convolution_is_a_convolution(k, seed, bias):
    """The thread's decoder of stride 1 can learn nothing that convolutions cannot."""
    torch.manual_seed(seed)
    layer = nn.ConvTranspose2d(3, 4, k, padding=seed % k, bias=bias)
    x = torch.randn(1, 3, 9, 8)
    assert torch.allclose(layer(x), as_convolution(layer)(x), atol=1e-5)


def strided_and_dilated(x, kernels, *, dilate_pools):
    """Return the maps of a net with pools of stride 2, and of the same net with dilation instead.

    Away from the rim; the second one at every 2 ** pools-th pixel.
    """
    strided, dilated, d = x, x, 1
    for kernel in kernels:
        strided = F.max_pool2d(F.relu(F.conv2d(strided, kernel, padding=1)), 3, 2, 1)
        dilated = F.relu(F.conv2d(dilated, kernel, padding=d, dilation=d))
        if dilate_pools:
            dilated = F.max_pool2d(F.pad(dilated, (d,) * 4), 3, 1, dilation=d)
        else:  # windows as wide, but without gaps
            dilated = F.max_pool2d(F.pad(dilated, (d,) * 4), 2 * d + 1, 1)
        d *= 2
    return strided, dilated[..., ::d, ::d]


def test_pools_turn_into_dilation_only_with_dilated_windows():
    torch.manual_seed(0)
    kernels = [torch.randn(4, 1 if i == 0 else 4, 3, 3, dtype=torch.double) for i in range(3)]
    x = torch.randn(1, 1, 128, 128, dtype=torch.double)
    inner = (..., slice(4, -4), slice(4, -4))
    strided, dilated = strided_and_dilated(x, kernels, dilate_pools=True)
    assert torch.allclose(strided[inner], dilated[inner])
    strided, contiguous = strided_and_dilated(x, kernels, dilate_pools=False)
    assert not torch.allclose(strided[inner], contiguous[inner], rtol=0.1)
