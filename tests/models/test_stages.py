"""Which layers are shown, of every network, and that their maps are those the net computes."""

import numpy as np
import pytest
import torch

from fcntile.models import create_model, list_models
from fcntile.models.reach import layer_strides
from fcntile.models.registry import build_on_meta
from fcntile.models.stages import MAX_STAGES, choose_stages, record
from fcntile.models.summary import layers

DEEP = ("fc-densenet67", "fc-densenet103", "atrous-resnet50")  # have smaller siblings
NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name
    for name in list_models()
    if name not in ("pixel", "probe")
]
CLASSES = 3


def small(name):
    """Return options that make a network small."""
    if "densenet" in name:
        return {"growth": 4}
    return {"width": 4} if "resnet" in name else {"width": 4, "head": 40}


def look(name, size=64, maps=4):
    torch.manual_seed(0)
    net = create_model(name, 3, CLASSES, **small(name)).eval()
    size = net.size or size
    x = torch.randn(1, 3, size, size)
    outline = build_on_meta(name, 3, CLASSES, small(name))
    found = layers(outline, 3, size, size)
    places = choose_stages(found, dict(net.named_modules()))
    stages, logits = record(net, x, found, places, maps)
    return net, x, found, stages, logits


@pytest.mark.parametrize("name", NAMES)
def test_stages_of_every_network_go_from_the_image_to_the_scores(name):
    size = 256 if name == "deconvnet" else 64  # below 224 px it completes its deepest map
    net, x, found, stages, logits = look(name, size)
    assert 5 <= len(stages) <= MAX_STAGES
    assert len(layer_strides(net)) == len(found)
    # in the order of computation, each as the layer has it
    remaining = iter([(layer.name, *layer.shape) for layer in found])
    assert all((s.name, s.channels, s.height, s.width) in remaining for s in stages)
    for s in stages:
        assert s.maps.shape == (min(4, s.channels), s.height, s.width)
        assert s.maps.isfinite().all()
        # but for maps cut by convolutions without padding, and the last row of transposed ones
        assert s.stride * s.height <= x.shape[2] + s.stride
    last = stages[-1]
    assert (last.channels, last.height, last.width, last.stride) == (CLASSES, *x.shape[2:], 1)
    with torch.no_grad():
        expected = net(x)[0]
    assert torch.equal(last.maps, expected)
    assert torch.equal(logits, expected)
    strides = [s.stride for s in stages]
    deepest = strides.index(max(strides))
    assert strides[: deepest + 1] == sorted(strides[: deepest + 1])
    assert strides[deepest:] == sorted(strides[deepest:], reverse=True)
    assert max(strides) == net.stride


@pytest.mark.parametrize(
    ("name", "names", "strides"),
    [
        (
            "fcn8s",
            "block1.1_2.relu1_2 block2.2_2.relu2_2 block3.3_3.relu3_3 block4.4_3.relu4_3 "
            "block5.5_3.relu5_3 fc6.relu6 fc7.relu7 score_fr score_pool4 upscore2 score_pool3 "
            "upscore_pool4 upscore",
            [1, 2, 4, 8, 16, 32, 32, 32, 16, 16, 8, 8, 1],
        ),
        (
            "deconvnet",
            "block1.1_2.relu1_2 block2.2_2.relu2_2 block3.3_3.relu3_3 block4.4_3.relu4_3 "
            "block5.5_3.relu5_3 fc6.relu6 fc7.relu7 fc6_deconv.relu6 deblock5.5_3.relu5_3 "
            "deblock4.4_3.relu4_3 deblock3.3_3.relu3_3 unpool2 deblock2.2_2.relu2_2 unpool1 "
            "deblock1.1_2.relu1_2 score",
            [1, 2, 4, 8, 16, 32, 32, 32, 16, 8, 4, 2, 2, 1, 1, 1],
        ),
        (
            "full-resolution",
            "stream.0.relu stream.1.relu stream.2.relu stream.3.relu head.0.relu head.1.conv6 "
            "score",
            [1] * 7,
        ),
    ],
)
def test_stages_are_those_that_a_person_would_choose(name, names, strides):
    _, _, _, stages, _ = look(name, size=256 if name == "deconvnet" else 64)
    assert " ".join(s.name for s in stages) == names
    assert [s.stride for s in stages] == strides


def test_maps_are_those_of_the_largest_variance():
    net, x, _, stages, _ = look("fcn8s", maps=5)
    stage = next(s for s in stages if s.name.startswith("block3"))
    with torch.no_grad():
        below = net.block2(net.block1(x))
        maps = net.block3[:-1](below)[0].numpy()  # all but the pooling
    order = np.argsort([m.var() for m in maps])[::-1]
    np.testing.assert_array_equal(stage.maps, maps[order[:5]])


def test_no_hook_stays_behind():
    net, *_ = look("fcn8s")
    assert not any(m._forward_hooks for m in net.modules())
