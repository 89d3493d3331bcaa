"""The FCNs, against a plain computation of the Caffe nets."""

import math
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from nets import NARROW

from fcntile.errors import ModelError
from fcntile.models import create_model
from fcntile.models.fcn import CROPS
from fcntile.models.upsampling import bilinear_kernel

NETS = [("fcn32s", 0), ("fcn16s", 1), ("fcn8s", 2), ("fcn8s-atonce", 2)]


def as_caffe(name, classes=2):
    torch.manual_seed(0)
    net = create_model(name, 3, classes, **NARROW, padding=100).double().eval()
    with torch.no_grad():
        for p in net.parameters():  # so that scores do not vanish with depth
            if p.requires_grad and p.ndim > 1:
                p.mul_(3)
    return net


def shift_of_layers(*layers):
    """Follow Caffe's coord_map: return scale and shift from the input to a map.

    Each layer is ("conv" or "deconv", kernel, stride, padding).
    """
    scale, shift = Fraction(1), Fraction(0)
    for kind, k, s, p in layers:
        if kind == "conv":
            scale, shift = scale / s, shift / s + (Fraction(p) - Fraction(k - 1, 2)) / s
        else:
            scale, shift = scale * s, shift * s + Fraction(k - 1, 2) - p
    return scale, shift


def blocks(first, last, padding):
    made = []
    for block in range(first, last + 1):
        convolutions = (2, 2, 3, 3, 3)[block - 1]
        made += [
            ("conv", 3, 1, padding if (block, i) == (1, 0) else 1) for i in range(convolutions)
        ]
        made.append(("conv", 2, 2, 0))
    return made


def offset(larger, smaller):
    (scale, shift), (other_scale, other_shift) = larger, smaller
    assert scale == other_scale
    return shift - other_shift


@pytest.mark.parametrize("padding", [100, 120])
def test_the_crops_follow_from_the_layers(padding):
    pools = {n: shift_of_layers(*blocks(1, n, padding)) for n in (3, 4)}
    fc7 = [*blocks(1, 5, padding), ("conv", 7, 1, 0), ("conv", 1, 1, 0)]
    image = (Fraction(1), Fraction(0))
    moved = padding - 100
    up32 = shift_of_layers(*fc7, ("deconv", 64, 32, 0))
    assert -offset(image, up32) == CROPS[0][0] + moved
    twice = [*fc7, ("deconv", 4, 2, 0)]
    assert -offset(shift_of_layers(*twice), pools[4]) == CROPS[1][0] == CROPS[2][0]
    assert -offset(image, shift_of_layers(*twice, ("deconv", 32, 16, 0))) == CROPS[1][1] + moved
    four_times = [*twice, ("deconv", 4, 2, 0)]
    assert -offset(shift_of_layers(*four_times), pools[3]) == CROPS[2][1]
    eight = shift_of_layers(*four_times, ("deconv", 16, 8, 0))
    assert -offset(image, eight) == CROPS[2][2] + moved


def sizes_in_caffe(size):
    """Return the sizes of pool3, pool4, fc6 and what upsampling gives, by Caffe's rules."""
    size += 2 * 100 - 2
    pools = []
    for _ in range(5):
        size = math.ceil((size - 2) / 2) + 1
        pools.append(size)
    fc6 = pools[4] - 6
    return pools[2], pools[3], fc6, {f: f * (fc6 - 1) + 2 * f for f in (2, 32)}


@pytest.mark.parametrize("sizes", [range(first, first + 100) for first in range(1, 1001, 100)])
def test_with_padding_100_every_size_comes_out_as_it_went_in(sizes):
    with torch.device("meta"):
        net = create_model("fcn8s", 3, 2, **NARROW, padding=100).eval()
    seen = {}
    for name in ("block3", "block4", "fc6", "upscore2", "upscore"):
        net.get_submodule(name).register_forward_hook(
            lambda m, i, o, name=name: seen.update({name: tuple(o.shape[-2:])})
        )
    for height in sizes:
        width = 1001 - height
        assert net(torch.empty(1, 3, height, width, device="meta")).shape[-2:] == (height, width)
        for axis, size in enumerate((height, width)):
            pool3, pool4, fc6, up = sizes_in_caffe(size)
            assert (seen["block3"][axis], seen["block4"][axis]) == (pool3, pool4)
            assert (seen["fc6"][axis], seen["upscore2"][axis]) == (fc6, up[2])
            assert seen["upscore"][axis] == 8 * (2 * (up[2] - 1) + 4 - 1) + 16
            assert pool4 >= up[2] + 5  # so the crops lie inside
            assert pool3 >= 2 * up[2] + 2 + 9


def plain_caffe(net, skips, x, scales):
    """Compute a Caffe FCN without the net's own forward, crops included."""
    parameters = dict(net.named_parameters())

    def convolve(x, name, padding):
        return F.conv2d(
            x, parameters[f"{name}.weight"], parameters[f"{name}.bias"], padding=padding
        )

    def enlarge(x, factor):
        kernel = bilinear_kernel(factor).double().expand(x.shape[1], 1, -1, -1)
        return F.conv_transpose2d(x, kernel, stride=factor, groups=x.shape[1])

    image, pools = x, {}
    for block, convolutions in enumerate((2, 2, 3, 3, 3), 1):
        for i in range(1, convolutions + 1):
            name = f"block{block}.{block}_{i}.conv{block}_{i}"
            x = F.relu(convolve(x, name, 100 if (block, i) == (1, 1) else 1))
        x = pools[block] = F.max_pool2d(x, 2, ceil_mode=True)
    x = F.relu(convolve(F.relu(convolve(x, "fc6.conv6", 0)), "fc7.conv7", 0))
    score = convolve(x, "score_fr", 0)
    for pool, offset, scale in list(zip((4, 3), (5, 9), scales, strict=True))[:skips]:
        score = enlarge(score, 2)
        h, w = score.shape[-2:]
        finer = convolve(pools[pool] * scale, f"score_pool{pool}", 0)
        score = score + finer[..., offset : offset + h, offset : offset + w]
    score, start = enlarge(score, 32 >> skips), (19, 27, 31)[skips]
    return score[..., start : start + image.shape[-2], start : start + image.shape[-1]]


@pytest.mark.parametrize(("name", "skips"), NETS)
@pytest.mark.parametrize("size", [(1, 1), (37, 250), (224, 161)])
def test_with_padding_100_logits_are_those_of_the_caffe_net(name, skips, size):
    net, x = as_caffe(name), torch.randn(1, 3, *size).double()
    scales = (0.01, 0.0001) if name == "fcn8s-atonce" else (1, 1)
    expected = plain_caffe(net, skips, x, scales)
    assert expected.shape[-2:] == size
    assert expected.std() > 1e-6
    assert torch.allclose(net(x), expected, rtol=1e-10, atol=0)


def test_padding_changes_the_rim_and_not_the_weights():
    same, caffe = (create_model("fcn8s", 3, 2, **NARROW, padding=p) for p in ("same", 100))
    assert same.load_state_dict(caffe.state_dict()).missing_keys == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"padding": 50}, "padding 50 is neither same nor 100"),
        ({"padding": 100, "upsampling": "bilinear"}, "goes with five blocks and frozen or learned"),
        ({"upsampling": "zero-fill"}, "leaves holes"),
        ({"skip_scales": [1]}, "the 2 skips have the scales"),
        ({"skip_scales": [1, 0]}, "wanted is one each, not 0"),
        ({"blocks": 2}, "2 blocks, wanted is 3 to 5"),
    ],
)
def test_what_does_not_go_together_is_refused(options, words):
    with pytest.raises(ModelError, match=words):
        create_model("fcn8s", 3, 2, **options)


def test_a_frozen_kernel_is_not_trained():
    net = create_model("fcn8s", 3, 2, width=1, head=1)
    frozen = [name for name, p in net.named_parameters() if not p.requires_grad]
    assert frozen == ["upscore2.weight", "upscore_pool4.weight", "upscore.weight"]


def test_deep_fcn_is_fcn8s_with_dilated_convolutions():
    deep, plain = (create_model(n, 3, 2, **NARROW) for n in ("deep-fcn", "fcn8s"))
    undone = create_model("deep-fcn", 3, 2, **NARROW, dilation=1)
    assert deep.receptive_field == 648 > plain.receptive_field == undone.receptive_field
    assert deep.block1.get_submodule("1_1").conv1_1.dilation == (2, 2)
    assert [deep.score_pool4.weight.std() < s for s in (0.005, 0.0001)] == [True, False]
    assert create_model("deep-fcn", 3, 2, **NARROW, blocks=3).stride == 8
