"""Weights go where their names say, and nowhere else."""

import logging
import re
from dataclasses import replace

import pytest
import torch
from torch import nn
from vgg import bgr, hollow, random_head

from fcntile.errors import ModelError
from fcntile.models.pretrained import load_into, read_pretrained
from fcntile.models.pretrained.complete import complete_model
from fcntile.models.registry import Net, create_model

RGB = ("red", "green", "blue")


@pytest.fixture(scope="module")
def given(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("given") / "fcn8s.pth"
    torch.save({**bgr(weights), **random_head(2, 2)}, path)
    return read_pretrained(path)


def test_every_layer_is_taken_by_name(given, weights, caplog):
    net = create_model("fcn8s", 3, 2, head=16)
    upscore = net.upscore.weight.clone()
    with caplog.at_level(logging.INFO):
        assert load_into(net, RGB, given) == []
    for name, p in net.named_parameters():
        layer, kind = name.split(".")[-2:]
        if layer in ("conv6", "conv7"):
            assert torch.equal(p, given.weights[f"{layer}.{kind}"]), name
        elif layer.startswith("conv"):
            assert torch.equal(p, weights[f"{layer}.{kind}"]), name
    assert torch.equal(net.score_pool3.weight, given.weights["score_pool3.weight"])
    assert torch.equal(net.upscore.weight, upscore)
    assert "18 layers, conv1_1 to score_pool3, " in caplog.text
    assert "left as they start: nothing" in caplog.text


def test_other_heads_and_classes_stay_at_chance_and_are_named(given, caplog):
    torch.manual_seed(0)
    before = create_model("fcn8s", 3, 5, head=12)
    torch.manual_seed(0)
    net = create_model("fcn8s", 3, 5, head=12)
    with caplog.at_level(logging.INFO):
        left = load_into(net, RGB, given)
    assert left == ["conv6", "conv7", "score_fr", "score_pool4", "score_pool3"]
    assert f"left as they start: {', '.join(left)}" in caplog.text
    for name, p in net.named_parameters():
        assert torch.equal(p, before.get_parameter(name)) == (not name.startswith("block"))


def test_fewer_blocks_take_what_they_have(given):
    net = create_model("fcn2s_small", 3, 2, width=64, batch_norm=False, head=16)
    assert load_into(net, RGB, given) == ["conv6", "score_pool1"]
    assert torch.equal(
        net.get_parameter("block2.2_2.conv2_2.weight"), given.weights["conv2_2.weight"]
    )


def test_a_batch_norm_takes_the_bias_and_changes_nothing(given):
    torch.manual_seed(0)
    nets = [create_model("fcn8s", 3, 2, head=16, batch_norm=b).eval() for b in (False, True)]
    for net in nets:
        assert load_into(net, RGB, given) == []
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        plain, normed = (net(x) for net in nets)
    assert (plain - normed).abs().max() <= 1e-3 * plain.abs().max()  # eps of 16 norms: 5e-6 each
    assert not nets[1].block1[0].conv1_1.bias


@pytest.mark.parametrize(
    ("name", "options", "last"),
    [
        ("fcn32s", {"padding": 100}, "fc7"),
        ("fcn8s", {"batch_norm": True}, "fc7"),
        ("deep-fcn", {"dilation": 1}, "fc7"),
        ("atrous-vgg16", {"output_stride": 32}, "fc7"),
        ("mirror-vgg", {}, "fc7"),
        ("deconvnet", {}, "block5"),
        ("mirror-vgg-thread", {}, "encoder.4"),
    ],
)
def test_every_net_on_vgg16_gives_the_maps_of_the_file(name, options, last, given):
    torch.manual_seed(0)
    net, seen = create_model(name, 3, 2, head=16, **options).eval(), {}
    load_into(net, RGB, given)
    net.get_submodule(last).register_forward_hook(lambda *args: seen.update(map=args[2]))
    x = torch.randn(1, 3, 224, 224)
    w = given.weights
    with torch.no_grad():
        net(x)
        expected = x
        for block, count in enumerate((2, 2, 3, 3, 3), 1):
            for i in range(1, count + 1):
                padding = 100 if (block, i) == (1, 1) and "padding" in options else 1
                layer = f"conv{block}_{i}"
                expected = nn.functional.conv2d(
                    expected, w[f"{layer}.weight"], w[f"{layer}.bias"], padding=padding
                ).relu()
            if block < 5 or name != "deconvnet":
                expected = nn.functional.max_pool2d(expected, 2, ceil_mode=True)
        if last == "fc7":
            padding = 0 if "padding" in options else 3
            for layer, p in (("conv6", padding), ("conv7", 0)):
                expected = nn.functional.conv2d(
                    expected, w[f"{layer}.weight"], w[f"{layer}.bias"], padding=p
                ).relu()
    assert seen["map"].shape == expected.shape
    assert (seen["map"] - expected).abs().max() <= 1e-3 * expected.abs().max()


def test_bands_without_colours_are_said(given, caplog):
    net = create_model("fcn32s", 3, 2, head=16)
    load_into(net, ("band1", "band2", "band3"), given)
    assert "none of the bands band1, band2, band3 is called red, green or blue" in caplog.text
    caplog.clear()
    load_into(net, ("Red", "Green", "Blue"), given)
    first = net.get_parameter("block1.1_1.conv1_1.weight")
    assert torch.equal(first, given.weights["conv1_1.weight"])
    assert not caplog.text


def test_scores_are_those_of_the_file_whatever_the_net_scales(given):
    torch.manual_seed(1)
    score = torch.randn(2, 512, 1, 1)
    weights = {**given.weights, "score_pool4.weight": score, "score_pool4.bias": torch.zeros(2)}
    net = create_model("fcn8s-atonce", 3, 2, head=16)
    load_into(net, RGB, replace(given, weights=weights))
    torch.testing.assert_close(0.01 * net.score_pool4.weight, score)


def test_bands_are_matched_by_name(given):
    net = create_model("fcn8s", 4, 2, head=16)
    load_into(net, ("nir", "blue", "red", "green"), given)
    first, known = net.get_parameter("block1.1_1.conv1_1.weight"), given.weights["conv1_1.weight"]
    for channel, band in ((1, 2), (2, 0), (3, 1)):
        assert torch.equal(first[:, channel], known[:, band])
    torch.testing.assert_close(first[:, 0], known.mean(1))


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("fcn8s-small", "has 64 filters in conv1_1, the net has 12: use --arch-option width=64"),
        ("pixel", "no layer conv1_1 .* such as fcn8s"),
    ],
)
def test_another_net_is_refused(arch, words, given):
    with pytest.raises(ModelError, match=words):
        load_into(create_model(arch, 3, 2), RGB, given)


# --- ResNet-50, by a stand-in in torchvision's names -------------------------------------------


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, is_first):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2, self.conv3 = nn.BatchNorm2d(width), nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        if is_first:
            shortcut = nn.Conv2d(inputs, 4 * width, 1, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * width))


class ResNet(Net):
    """The parameters of ResNet-50; `fc` as torchvision, or `score` as fcntile has it."""

    def __init__(self, *, fc=False, classes=1000, blocks=(3, 4, 6, 3), bias=False):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=bias)
        self.bn1, inputs = nn.BatchNorm2d(64), 64
        for i, count in enumerate(blocks):
            width = 64 << i
            layer = nn.Sequential()
            for n in range(count):
                layer.append(Bottleneck(inputs, width, n == 0))
                inputs = 4 * width
            self.add_module(f"layer{i + 1}", layer)
        if fc:
            self.fc = nn.Linear(inputs, classes)
        else:
            self.score = nn.Conv2d(inputs, classes, 1)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    torch.manual_seed(0)
    state = ResNet(fc=True).state_dict()
    for name, value in state.items():
        if "running" in name:
            value.uniform_(0.5, 1.5)
    path = tmp_path_factory.mktemp("resnet") / "resnet50.pth"
    torch.save(state, path)
    return path, state


def test_resnet50_has_the_weights_of_torchvision(resnet):
    path, state = resnet
    given = read_pretrained(path)
    trained = [w for n, w in given.weights.items() if "running" not in n and "num_" not in n]
    assert sum(w.numel() for w in trained) == 25_557_032  # as torchvision publishes
    assert (given.source, given.arch, given.spread) == (
        "ResNet-50 of torchvision",
        "fcn-resnet50",
        1,
    )
    assert given.arch_options == {"style": "torchvision"}
    assert [b.mean / 255 for b in given.bands] == pytest.approx([0.485, 0.456, 0.406])
    assert [b.std / 255 for b in given.bands] == pytest.approx([0.229, 0.224, 0.225])
    net = ResNet()
    assert load_into(net, RGB, given) == []
    found = net.state_dict()
    for name, value in state.items():
        if "num_batches" not in name and not name.startswith("fc"):
            assert torch.equal(found[name], value), name
    features = torch.randn(2048)
    torch.testing.assert_close(
        found["score.weight"][:, :, 0, 0] @ features + found["score.bias"],
        nn.functional.linear(features, state["fc.weight"], state["fc.bias"]),
    )


def test_a_resnet_with_other_classes_keeps_its_scores_at_chance(resnet):
    assert load_into(ResNet(classes=4), RGB, read_pretrained(resnet[0])) == ["score"]


def test_a_resnet_with_its_strides_elsewhere_is_refused(resnet):
    with pytest.raises(ModelError, match=r"no conv1.bias, the net has one: .*style"):
        load_into(ResNet(bias=True), RGB, read_pretrained(resnet[0]))


def test_other_resnets_are_refused(tmp_path):
    torch.save(ResNet(fc=True, blocks=(3, 4, 7, 3)).state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(ModelError, match=r"not ResNet-50"):
        read_pretrained(tmp_path / "resnet.pth")


@pytest.fixture(scope="module")
def read_resnet(tmp_path_factory):
    """Return what reads a ResNet-50 of zeros, but for changes; what changes to None is left out."""
    with torch.device("meta"):
        net = ResNet(fc=True)
    state = {name: hollow(*w.shape) for name, w in net.state_dict().items()}

    def read(**changes):
        path = tmp_path_factory.mktemp("hollow") / "resnet.pth"
        torch.save({n: w for n, w in {**state, **changes}.items() if w is not None}, path)
        return read_pretrained(path)

    return read


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"conv1.weight": hollow(64, 4, 7, 7)}, r"\(64, 3, 7, 7\) in conv1, .* \(64, 4, 7, 7\)"),
        ({"fc.weight": hollow(2048)}, "layer fc .* is none of ResNet-50: a kernel has 4 axes or 2"),
        ({"fc.weight": hollow()}, "layer fc .* is none of ResNet-50: a kernel has 4 axes or 2"),
        ({"bn1.running_var": hollow(64) - 1}, "damaged: bn1.running_var has negative values"),
        ({"fc.bias": hollow(1000) / 0}, "damaged: score.bias has values that are not finite"),
    ],
)
def test_an_odd_resnet_is_refused(change, words, read_resnet):
    with pytest.raises(ModelError, match=words):
        read_resnet(**change)


@pytest.mark.parametrize("name", ["layer1.0.se.fc1", "layer5.0.conv1", "layer1.1.downsample.0"])
def test_layers_of_a_resnet_that_the_net_has_not_are_named(name, read_resnet, caplog):
    given = read_resnet(**{f"{name}.weight": hollow(4, 4, 1, 1)})
    with pytest.raises(ModelError, match=f"fcn-resnet50 does not have, such as {name}: use"):
        complete_model(given, "imagenet")
    with caplog.at_level(logging.INFO):
        load_into(ResNet(), RGB, given)
    assert f"no use for these layers of ResNet-50 of torchvision: {name}\n" in caplog.text


def test_a_resnet_without_a_bias_of_its_scores_is_for_training_only(read_resnet):
    given = read_resnet(**{"fc.bias": None})
    assert load_into(ResNet(), RGB, given) == ["score"]
    with pytest.raises(ModelError, match=r"not complete: it lacks score\.bias of fcn-resnet50"):
        complete_model(given, "imagenet")


@pytest.mark.parametrize("name", ["layer2.0.conv1.weight", "layer2.0.bn1.weight"])
def test_a_layer_of_another_shape_is_named_with_both(name, read_resnet):
    net = ResNet()
    wanted = tuple(net.get_parameter(name).shape)
    words = rf"has \(128, 7\) in {name}, the net has {re.escape(str(wanted))}"
    with pytest.raises(ModelError, match=words):
        load_into(net, RGB, read_resnet(**{name: hollow(128, 7)}))


def features_of(state, x):
    """Compute ResNet-50 as torchvision does, from its state dict."""

    def norm(x, name):
        values = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return nn.functional.batch_norm(x, *values)

    def layer(x, conv, bn, **more):
        return norm(nn.functional.conv2d(x, state[f"{conv}.weight"], **more), bn)

    x = layer(x, "conv1", "bn1", stride=2, padding=3).relu()
    x = nn.functional.max_pool2d(x, 3, 2, 1)
    for stage, count in enumerate((3, 4, 6, 3), 1):
        for block in range(count):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = layer(x, f"{name}.conv1", f"{name}.bn1").relu()
            y = layer(y, f"{name}.conv2", f"{name}.bn2", stride=stride, padding=1).relu()
            y = layer(y, f"{name}.conv3", f"{name}.bn3")
            if block == 0:
                x = layer(x, f"{name}.downsample.0", f"{name}.downsample.1", stride=stride)
            x = (x + y).relu()
    return x


def test_resnet50_gives_the_features_of_torchvision(resnet):
    path, state = resnet
    net, card = complete_model(read_pretrained(path), "imagenet")
    assert (card.arch, card.arch_options) == ("fcn-resnet50", {"style": "torchvision"})
    x, seen = torch.randn(1, 3, 64, 96), {}
    net.layer4.register_forward_hook(lambda *args: seen.update(layer4=args[2]))
    with torch.no_grad():
        net.eval()(x)
        expected = features_of(state, x)
    assert expected.shape == (1, 2048, 2, 3)
    assert (seen["layer4"] - expected).abs().max() <= 1e-4 * expected.abs().max()
