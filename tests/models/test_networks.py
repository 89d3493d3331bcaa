"""Every network, in one harness: thin, at full depth."""

import io

import pytest
import torch
from nets import NETWORKS, THIN, card
from torch import nn

from fcntile.models import create_model
from fcntile.models.layers import fold_batch_norm
from fcntile.models.model_file import load_model, save_model
from fcntile.models.reach import analyse, input_interval
from fcntile.models.upsampling import UPSAMPLINGS

every_network = pytest.mark.parametrize("name", NETWORKS)


def thin(name, bands=3, classes=2, **options):
    torch.manual_seed(0)
    return create_model(name, bands, classes, **{**THIN[name], **options})


def sizes_of(net):
    """Return two heights and widths that a net takes."""
    if net.size:
        return [(net.size, net.size)]
    return [(2 * net.stride, 3 * net.stride), (7 * net.stride, net.stride)]


def tile_of(net, n=2, bands=3):
    return torch.randn(n, bands, *sizes_of(net)[0])


def test_there_is_a_thin_one_of_each():
    assert set(THIN) == set(NETWORKS)


@every_network
def test_logits_have_the_size_of_the_input_and_the_net_is_not_built_again(name):
    net = thin(name, bands=4, classes=5).eval()
    for height, width in sizes_of(net):
        assert net(torch.randn(2, 4, height, width)).shape == (2, 5, height, width)


@every_network
def test_a_tile_does_not_depend_on_its_batch(name):
    net = thin(name)
    x = tile_of(net, 3)
    net(x)  # running statistics of their own
    net.eval()
    assert torch.allclose(net(x)[1], net(x[1:2])[0], rtol=1e-4, atol=1e-5)


@every_network
def test_steps_lower_the_loss(name):
    net = thin(name)
    if name == "mirror-vgg-thread":  # at chance it may give nothing but zeros: see its limits
        torch.nn.init.ones_(net.score.bias)
    x = tile_of(net)
    labels = (x[:, 0] > 0).long()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        torch.manual_seed(1)  # the same activations are dropped
        loss = torch.nn.functional.cross_entropy(net(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@every_network
def test_a_saved_net_comes_back_as_it_was(name, tmp_path):
    net = thin(name)
    x = tile_of(net)
    net(x)
    net.eval()
    made = card(name, classes=2, arch_options=THIN[name])
    save_model(tmp_path / "m.safetensors", net, made)
    model = load_model(tmp_path / "m.safetensors")
    assert model.net.reach == net.reach
    assert torch.equal(model.net(x), net(x))


@every_network
def test_batch_norms_fold(name):
    net = thin(name)
    x = tile_of(net, 4)
    net(x)
    net.eval()
    assert torch.allclose(fold_batch_norm(net)(x), net(x), rtol=1e-3, atol=1e-4)


@every_network
def test_an_exported_net_comes_back_as_it_was(name):
    net = thin(name).eval()
    x = tile_of(net)
    file = io.BytesIO()
    torch.export.save(torch.export.export(net, (x,)), file)
    file.seek(0)
    assert torch.allclose(torch.export.load(file).module()(x), net(x), atol=1e-6)


def positive(net):
    """Return a net whose weights are all positive: no path can cancel or die in a ReLU."""
    net = net.double().eval()
    with torch.no_grad():
        for p in net.parameters():
            p.abs_().add_(1e-3)
    return net


@pytest.mark.parametrize("style", ["paper", "keras-contrib"])
def test_an_early_transition_halves_the_work(style):
    given = {"style": style, "growth": 4, "early_transition": True}
    net = thin("fc-densenet56", **given).eval()
    assert net(torch.randn(1, 3, 128, 64)).shape == (1, 2, 128, 64)
    assert net.stride == 64
    # the last transition up gives `growth` maps in keras-contrib
    assert (net.score.in_channels == 4) == (style == "keras-contrib")


def reach_of_gradients(net, *spans, bands=1):
    """Return, for spans of output columns, the first and last input column they change with.

    The input rises to one side, so every maximum is the outermost value that its window has.
    """
    net = positive(net)
    rim = -(-net.receptive_field // net.stride) * net.stride
    width = 2 * rim + net.stride
    ends = []
    for ramp in (torch.linspace(2, 1, width), torch.linspace(1, 2, width)):
        x = ramp.double().repeat(1, bands, net.stride, 1).requires_grad_()
        logits = net(x)
        columns = []
        for first, last in spans:
            wanted = logits[..., rim + first : rim + last + 1].sum()
            (gradient,) = torch.autograd.grad(wanted, x, retain_graph=True)
            seen = gradient[0].abs().sum((0, 1)).nonzero()[:, 0] - rim
            columns.append((seen.min().item(), seen.max().item()))
        ends.append(columns)
    return [(left[0], right[1]) for left, right in zip(*ends, strict=True)]


@every_network
def test_the_halo_is_what_gradients_reach(name):
    # gradients do not pass the switches of an unpooling, which see as far as its values
    net = thin(name, bands=1, **({"unpooling": "repeat"} if name == "deconvnet" else {}))
    if net.size:
        assert net.halo is None
        return
    ((first, last),) = reach_of_gradients(net, (0, net.stride - 1))
    assert max(-first, last - net.stride + 1) == net.reach.halo
    assert net.reach.halo <= net.halo < net.reach.halo + net.stride
    assert net.halo % net.stride == 0


@pytest.mark.parametrize(
    "layer",
    [
        nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=True),
        nn.Upsample(scale_factor=2.0, mode="bicubic"),
        nn.Upsample(scale_factor=1.5),
        nn.Upsample(scale_factor=(2.0, 4.0)),
        nn.Upsample(size=(64, 64)),
    ],
    ids=str,
)
def test_the_reach_of_another_layer_is_not_guessed(layer):
    with pytest.raises(NotImplementedError, match=r"how far .* sees is not known"):
        analyse(nn.Sequential(nn.Conv2d(3, 3, 3), layer))


def test_nothing_beyond_the_halo_changes_an_aligned_block_behind_switches():
    net = positive(thin("deconvnet"))
    x, other = torch.randn(2, 1, 3, 224, 2 * net.halo + 32).double()
    core = (..., slice(net.halo, net.halo + 32))

    def changes(reach):
        seen = (..., slice(net.halo - reach, net.halo + 32 + reach))
        other[seen] = x[seen]
        return not torch.equal(net(x)[core], net(other)[core])

    assert changes(net.reach.halo - 96)
    assert not changes(net.reach.halo)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fcn8s", {"padding": 100}),
        ("fcn32s", {"padding": 100}),
        *[("fcn16s", {"upsampling": kind}) for kind in UPSAMPLINGS if kind != "zero-fill"],
        *[("deconvnet", {"unpooling": kind}) for kind in UPSAMPLINGS],
        ("atrous-vgg16", {}),
        ("fcn-resnet50", {"style": "torchvision"}),
        ("fc-densenet56", {"layers": 1}),
        (
            "fc-densenet56",
            {"layers": 1, "growth": 4, "early_transition": True, "upsampling": "subpixel"},
        ),
        ("full-resolution", {"height_bands": 1}),
    ],
)
def test_the_pixels_seen_are_those_that_gradients_reach(name, options):
    bands = 1 + options.get("height_bands", 0)
    net = thin(name, bands=bands, **options)
    spans = [(o, o) for o in (0, net.stride // 2, net.stride - 1)]
    assert reach_of_gradients(net, *spans, bands=bands) == [
        input_interval(net, *span) for span in spans
    ]


def test_the_receptive_field_is_the_largest_of_a_stride():
    net = thin("fcn8s")
    intervals = [input_interval(net, o, o) for o in range(32)]
    assert {last - first + 1 for first, last in intervals} == {436, 468}
    assert net.receptive_field == 468
