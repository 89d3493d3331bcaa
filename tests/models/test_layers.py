"""Nets made ready to run, against the nets they were."""

import copy

import pytest
import torch
from nets import NETWORKS, THIN
from torch import nn

from fcntile.models import create_model
from fcntile.models.bfloat16 import Exact, Packed, has_bfloat16
from fcntile.models.layers import as_convolution, cast_weights, fold_batch_norm, prepare
from fcntile.models.narrow import NarrowMaxPool, NarrowUpsample
from fcntile.models.upsampling import BilinearDeconvolution, make_upsampling
from fcntile.models.winograd import Winograd

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    """Compute as a worker does; many small layers wait for each other's threads otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def kinds(net):
    return {type(layer) for layer in net.modules()}


def trained(name, **options):
    """Return a thin net with running statistics of its own, and inputs of two sizes."""
    torch.manual_seed(0)
    net = create_model(name, 3, 2, **{**THIN[name], **options})
    side = net.size or 64
    net(torch.randn(2, 3, side, side))
    sizes = [(side, side)] if net.size else [(2 * net.stride, 3 * net.stride), (160, 64)]
    return net.eval().requires_grad_(False), [torch.randn(2, 3, *size) for size in sizes]


def check(net, tiles):
    """Return a net made ready, once it gave what the net gives in float64.

    Thin nets multiply rounding errors: what the net itself errs in float32 is allowed too.
    """
    before = {key: value.clone() for key, value in net.state_dict().items()}
    exact, ready = copy.deepcopy(net).double(), prepare(net, CPU)
    for x, order in zip(tiles, (torch.contiguous_format, torch.channels_last), strict=False):
        expected = exact(x.double())
        error = max(1e-4 * expected.std(), 4 * (net(x) - expected).abs().max())
        found = ready(x.to(memory_format=order))
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= error
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    return ready


@pytest.mark.parametrize("least", [1, 128])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_net_made_ready_gives_the_same_logits(name, least, monkeypatch):
    monkeypatch.setattr("fcntile.models.winograd.LEAST", least)
    check(*trained(name))


@pytest.mark.parametrize("name", ["fcn8s", "atrous-vgg16", "mirror-vgg", "fcn-resnet50"])
def test_wide_convolutions_take_fewer_multiplications(name, monkeypatch):
    monkeypatch.setattr("fcntile.models.winograd.LEAST", 1)
    net, tiles = trained(name)
    ready = check(net, tiles)
    assert Winograd in kinds(ready)
    assert nn.BatchNorm2d not in kinds(ready)
    assert not any(
        isinstance(m, nn.ConvTranspose2d) and m.stride == (1, 1) for m in ready.modules()
    )


def test_they_do_so_from_128_channels_on():
    ready = check(*trained("fcn8s", width=16, head=128))
    fast = [name for name, layer in ready.named_modules() if isinstance(layer, Winograd)]
    assert fast[0] == "block4.4_2.conv4_2"
    assert fast[-1] == "fc6.conv6"
    assert len(fast) == 6


def test_a_net_with_switches_stays_as_it_is():
    net, (x, *_) = trained("deconvnet")
    ready = prepare(net, CPU)
    assert torch.equal(ready(x.to(memory_format=torch.channels_last)), net(x))


@pytest.mark.parametrize("upsampling", ["frozen", "bilinear", "repeat", "learned", "subpixel"])
def test_every_upsampling_is_the_same(upsampling):
    ready = check(*trained("fcn8s-small", upsampling=upsampling))
    assert NarrowMaxPool in kinds(ready)
    assert (NarrowUpsample in kinds(ready)) == (upsampling in ("frozen", "bilinear"))


def test_a_relu_overwrites_a_convolution_only():
    torch.manual_seed(0)
    layers = nn.Identity(), nn.ReLU(), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)
    net = nn.Sequential(*layers).eval()
    ready = prepare(net, CPU)
    assert [m.inplace for m in ready if isinstance(m, nn.ReLU)] == [False, True]
    x = torch.randn(1, 3, 8, 8)
    before = x.clone()
    assert torch.allclose(ready(x), net(x), atol=1e-6)
    assert torch.equal(x, before)


@pytest.mark.parametrize("channels", [1, 12, 65])
def test_narrow_pooling_gives_the_same_bits(channels):
    x = torch.randn(2, channels, 9, 12).to(memory_format=torch.channels_last)
    assert torch.equal(NarrowMaxPool()(x), nn.MaxPool2d(2)(x))


@pytest.mark.parametrize("side", [1, 2, 9])
@pytest.mark.parametrize("channels", [1, 12, 65])
@pytest.mark.parametrize(
    ("kind", "factor"),
    [("bilinear", 2), ("bilinear", 3), ("bilinear", 8), ("frozen", 2), ("frozen", 8)],
)
def test_narrow_upsampling_interpolates_as_torch_does(kind, factor, channels, side):
    x = torch.randn(2, channels, side, 12).to(memory_format=torch.channels_last)
    up = make_upsampling(kind, channels, factor).eval()
    assert NarrowUpsample.suits(up)
    assert (NarrowUpsample(up)(x) - up.double()(x.double())).abs().max() < 1e-5


def trained_deconvolution():
    layer = BilinearDeconvolution(4, 2)
    layer.weight[2] *= 1.1
    return layer


class Doubling(nn.Upsample):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "layer",
    [
        Doubling(scale_factor=2.0, mode="bilinear"),
        nn.Upsample(scale_factor=2.0, mode="nearest"),
        nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=True),
        nn.Upsample(scale_factor=1.5, mode="bilinear"),
        nn.Upsample(scale_factor=(2.0, 4.0), mode="bilinear"),
        nn.Upsample(size=(8, 8), mode="bilinear"),
        BilinearDeconvolution(4, 2, learned=True),
        BilinearDeconvolution(4, 3),
        BilinearDeconvolution(4, 4, padding=0),
        trained_deconvolution(),
        nn.ConvTranspose2d(4, 4, 4, stride=2, padding=1, groups=4),
    ],
)
def test_other_upsamplings_stay(layer):
    assert not NarrowUpsample.suits(layer)


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3),
        nn.MaxPool2d(2, stride=1),
        nn.MaxPool2d(2, padding=1),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(2, return_indices=True),
        nn.AvgPool2d(2),
    ],
)
def test_other_poolings_stay(pool):
    assert not NarrowMaxPool.suits(pool)


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_a_transposed_convolution_of_stride_1_is_a_convolution(kernel):
    torch.manual_seed(0)
    for padding in range(kernel):
        layer = nn.ConvTranspose2d(5, 4, kernel, padding=padding).eval()
        conv = as_convolution(layer)
        assert isinstance(conv, nn.Conv2d)
        x = torch.randn(2, 5, 13, 14)
        assert torch.allclose(conv(x), layer(x), atol=1e-5)
    for other in (nn.ConvTranspose2d(4, 4, 4, stride=2), nn.ConvTranspose2d(4, 4, 3, groups=2)):
        assert as_convolution(other) is other


def test_a_folded_net_gives_the_same_logits():
    torch.manual_seed(0)
    net = create_model("fcn8s", 3, 2, width=4, head=8, batch_norm=True)
    net(torch.randn(4, 3, 64, 64))  # in training mode: running statistics of their own
    net.eval()
    folded = fold_batch_norm(net)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    x = torch.randn(2, 3, 64, 64)
    assert torch.allclose(folded(x), net(x), atol=1e-5)


def in_bfloat16(net, x):
    with torch.autocast("cpu", torch.bfloat16):
        return net(x)


@pytest.mark.parametrize("name", NETWORKS)
def test_in_bfloat16_a_net_made_ready_errs_as_autocast_does(name):
    net, tiles = trained(name)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    ready = prepare(net, CPU, torch.bfloat16, classes=2)
    for x, order in zip(tiles, (torch.contiguous_format, torch.channels_last), strict=False):
        exact, autocast = net(x), in_bfloat16(net, x)
        found = in_bfloat16(ready, x.to(memory_format=order))
        assert found.shape == exact.shape
        error, usual = ((logits - exact).square().mean().sqrt() for logits in (found, autocast))
        assert error <= 3 * usual + 1e-5 * exact.std()  # thin nets: few numbers, of much chance
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert Exact in kinds(ready)
    assert Winograd not in kinds(ready)
    assert (Packed in kinds(ready)) == has_bfloat16()


@pytest.mark.parametrize(
    ("name", "classes", "options"),
    [
        ("fcn8s", 70, {}),
        ("fcn8s-small", 3, {"upsampling": "subpixel"}),
        ("fcn8s-small", 3, {"upsampling": "learned"}),
        ("mirror-vgg", 3, {}),
    ],
)
def test_scores_stay_in_float32(name, classes, options):
    net = create_model(name, 3, classes, **{**THIN[name], **options}).eval().requires_grad_(False)
    ready = prepare(net, CPU, torch.bfloat16, classes)
    assert in_bfloat16(ready, torch.randn(1, 3, 64, 64)).dtype == torch.float32


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_rounded_once_give_what_autocast_gives_to_the_bit(name):
    net, tiles = trained(name)
    expected = [in_bfloat16(net, x) for x in tiles]
    cast_weights(net, torch.bfloat16)
    assert all(torch.equal(in_bfloat16(net, x), y) for x, y in zip(tiles, expected, strict=True))


def test_on_other_devices_weights_are_rounded_once():
    net, _ = trained("fcn8s")
    ready = prepare(net, torch.device("meta"), torch.bfloat16, classes=2)
    assert {p.dtype for p in ready.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in net.parameters()} == {torch.float32}


class Remembering(nn.Module):
    """Remembers its switches."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x):
        x, self.switches = self.pool(self.layers(x))
        return self.unpool(x, self.switches)


def test_in_bfloat16_too_the_first_of_equal_zeros_is_the_maximum():
    torch.manual_seed(0)
    net = Remembering().eval().requires_grad_(False)
    net.layers[0].bias -= 100
    ready, x = prepare(net, CPU, torch.bfloat16), torch.randn(1, 3, 16, 16)
    net(x)
    in_bfloat16(ready, x)
    assert torch.equal(ready.switches, net.switches)


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(5, 4, 3, padding=1),
        nn.Conv2d(8, 16, 3, stride=2, bias=False),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4),
        nn.Conv2d(64, 32, 1),
        nn.Conv2d(32, 48, 7, padding=3),
    ],
)
@pytest.mark.skipif(not has_bfloat16(), reason="this CPU has no bfloat16")
def test_a_packed_convolution_gives_the_same_for_every_size(conv, rectify):
    torch.manual_seed(0)
    conv = conv.requires_grad_(False)
    assert Packed.suits(conv)
    packed = Packed(conv, rectify=rectify)
    for size in ((16, 20), (64, 33), (7, 9)):  # weights are laid out for the first
        x = torch.randn(2, conv.in_channels, *size)
        expected = conv(x)
        error = expected.std() / 32  # bfloat16 has 8 bits, and values reach 4 deviations
        assert (packed(x) - (expected.relu() if rectify else expected)).abs().max() <= error


@pytest.mark.skipif(not has_bfloat16(), reason="this CPU has no bfloat16")
@pytest.mark.parametrize("value", [float("nan"), -float("nan")])
def test_what_is_not_a_number_does_not_become_one(value):
    conv = nn.Conv2d(8, 16, 3, padding=1).requires_grad_(False)
    conv.weight[3, 2, 1, 1] = value
    assert Packed(conv, rectify=True)(torch.randn(1, 8, 16, 16))[0, 3].isnan().all()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(4, 4, 3),
    ],
)
def test_other_convolutions_are_left_to_autocast(layer):
    assert not Packed.suits(layer)


class Half(nn.Module):
    """Runs the first layers of a chain only."""

    def __init__(self):
        super().__init__()
        once = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()
        again = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()
        self.chain = nn.Sequential(*once, *again)

    def forward(self, x):
        return self.chain[:3](x)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_layers_of_a_chain_keep_their_places(precision):
    torch.manual_seed(0)
    net = Half().eval().requires_grad_(False)
    ready, x = prepare(net, CPU, precision), torch.randn(1, 4, 8, 8)
    assert (in_bfloat16(ready, x) - net(x)).abs().max() < 0.05
