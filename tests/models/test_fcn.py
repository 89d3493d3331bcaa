"""Sizes are those published, or computed from a published count (docs/models.md says which)."""

import pytest
import torch
import torch.nn.functional as F

from fcntile.models import create_model
from fcntile.models.fcn import bilinear_upsampling


def parameters(name, classes):
    with torch.device("meta"):
        net = create_model(name, 3, classes)
    return sum(p.numel() for p in net.parameters())


def test_fcn8s_has_as_many_parameters_as_published():
    assert parameters("fcn8s", 21) == 134_368_799
    assert parameters("fcn8s", 2) == 134_270_854


@pytest.mark.parametrize(
    ("name", "dense", "kernels"),
    [
        ("fcn32s", 136_152_917, [64]),
        ("fcn16s", 134_815_994, [4, 32]),
        ("fcn8s", 134_489_759, [4, 4, 16]),
    ],
)
def test_parameters_equal_the_caffe_nets_less_the_zeros_of_their_kernels(name, dense, kernels):
    zeros = sum(21 * 20 * k * k for k in kernels)
    assert parameters(name, 21) == dense - zeros


def test_the_vgg16_convolutions_are_all_there():
    with torch.device("meta"):
        net = create_model("fcn8s", 3, 21)
    blocks = [net.block1, net.block2, net.block3, net.block4, net.block5]
    assert sum(p.numel() for block in blocks for p in block.parameters()) == 14_714_688


@pytest.mark.parametrize("name", ["fcn32s", "fcn16s", "fcn8s", "fcn2s-small"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_logits_have_the_size_of_the_input(name, batch_norm):
    net = create_model(name, 4, 5, width=2, head=3, batch_norm=batch_norm).eval()
    assert net(torch.zeros(2, 4, 64, 96)).shape == (2, 5, 64, 96)


def test_upsampling_has_the_kernel_of_the_paper():
    kernel = bilinear_upsampling(1, 2).weight[0, 0]
    row = torch.tensor([0.25, 0.75, 0.75, 0.25])
    assert torch.equal(kernel, torch.outer(row, row))


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_upsampling_is_bilinear_interpolation_away_from_the_rim(factor):
    x = torch.rand(1, 3, 5, 6)
    ours = bilinear_upsampling(3, factor)(x)
    theirs = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    inner = (..., slice(factor, -factor), slice(factor, -factor))
    assert ours.shape == theirs.shape
    assert torch.allclose(ours[inner], theirs[inner], atol=1e-6)
    assert not torch.allclose(ours, theirs, atol=1e-2)  # at the rim it fades to zero


def test_upsampling_is_frozen():
    net = create_model("fcn8s", 3, 2, width=1, head=1)
    frozen = [name for name, p in net.named_parameters() if not p.requires_grad]
    assert frozen == ["upscore2.weight", "upscore_pool4.weight", "upscore.weight"]


@pytest.mark.parametrize("name", ["fcn32s", "fcn16s", "fcn8s", "fcn2s-small"])
def test_nothing_beyond_the_halo_reaches_an_aligned_block(name):
    torch.manual_seed(0)
    net = create_model(name, 1, 2, width=4, head=4).eval().double()
    # all weights positive: no path from a pixel to a logit can cancel or die in a ReLU
    with torch.no_grad():
        for p in net.parameters():
            p.abs_()
    stride, halo = net.stride, net.halo
    size = 2 * (halo + stride) + stride
    x = torch.rand(1, 1, size, size, dtype=torch.double, requires_grad=True)
    core = slice(halo + stride, halo + 2 * stride)
    net(x)[0, 0, core, core].sum().backward()
    rows = x.grad[0, 0].abs().sum(1).nonzero()
    reach = max(core.start - rows.min().item(), rows.max().item() + 1 - core.stop)
    assert halo - stride < reach <= halo


def test_a_tile_does_not_depend_on_its_batch():
    torch.manual_seed(0)
    net = create_model("fcn8s", 3, 2, width=2, head=4, batch_norm=True).eval()
    x = torch.rand(3, 3, 64, 64)
    assert torch.allclose(net(x)[1], net(x[1:2])[0], atol=1e-6)
