"""Whole models out of files: their scores are those of the net that the file was written for."""

import hashlib

import numpy as np
import pytest
import scipy.io
import torch
from vgg import (
    BGR_MEAN,
    CAFFE_BGR_MEAN,
    NAMES,
    fcn,
    hollow,
    hollow_vgg,
    pools,
    random_head,
    random_vgg,
    save_caffemodel,
)

from fcntile.errors import ModelError
from fcntile.models.pretrained import read_pretrained
from fcntile.models.pretrained.classes import VOC
from fcntile.models.pretrained.complete import complete_model

RGB_MEAN = np.array([120.0, 110.0, 100.0])  # of a MatConvNet file's own
ARCHS = {0: "fcn32s", 1: "fcn16s", 2: "fcn8s"}


def save_pth(path, weights):
    torch.save(weights, path)


def save_mat(path, weights, *, kinds=("_filter", "_bias"), classes=()):
    """Write weights as MatConvNet's dagnn does, with the mean of the file's own."""
    params = np.zeros((1, len(weights)), [("name", object), ("value", object)])
    for i, (name, value) in enumerate(weights.items()):
        layer, _, kind = name.partition(".")
        is_kernel = kind == "weight"
        array = value.permute(2, 3, 1, 0) if is_kernel else value[:, None]
        while array.ndim > 2 and array.shape[-1] == 1:  # as MATLAB does
            array = array[..., 0]
        params[0, i] = (layer + kinds[not is_kernel], array.contiguous().numpy())
    normalization = {"averageImage": RGB_MEAN.reshape(1, 1, 3)}
    meta = {"normalization": normalization, "classes": {"description": np.array(classes, object)}}
    scipy.io.savemat(path, {"params": params, "meta": meta, "layers": np.zeros((1, 3))})


def save_caffe(path, weights):
    layers = {}
    for name, value in weights.items():
        layers.setdefault(name.partition(".")[0], []).append(value)
    save_caffemodel(path, layers)


def scores_of(net, card, image):
    mean, std = (torch.tensor([getattr(b, n) for b in card.bands]) for n in ("mean", "std"))
    x = (torch.from_numpy(image).float() - mean) / std
    with torch.no_grad():
        return net.eval()(x.permute(2, 0, 1)[None])


def theirs(weights, image, net, *, mean, is_bgr, scales=(1, 1)):
    x = torch.from_numpy(((image[..., ::-1] if is_bgr else image) - mean).astype("f4"))
    pad = 100 if "padding" in str(net) else 1
    return fcn(weights, x.permute(2, 0, 1)[None], pad, scales)


@pytest.fixture(scope="module")
def weights():
    return random_vgg(gain=0.9)


@pytest.mark.parametrize("skips", [0, 1, 2])
@pytest.mark.parametrize("save", [save_pth, save_mat, save_caffe])
def test_an_fcn_gives_the_scores_of_its_own_framework(save, skips, weights, image, tmp_path):
    weights = {**weights, **random_head(21, skips)}
    save(tmp_path / "file", weights)
    given = read_pretrained(tmp_path / "file")
    net, card = complete_model(given, "voc")
    assert (card.arch, card.arch_options["head"]) == (ARCHS[skips], 16)
    assert [c.name for c in card.classes] == list(VOC)
    is_mat = save is save_mat
    mean = RGB_MEAN if is_mat else CAFFE_BGR_MEAN
    expected = theirs(weights, image, card.arch_options, mean=mean, is_bgr=not is_mat)
    ours = scores_of(net, card, image)
    assert ours.shape == expected.shape == (1, 21, 64, 96)
    assert (ours - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_short_names_and_class_names_of_matconvnet_are_known(weights, tmp_path):
    weights = {**weights, **random_head(1, 0)}
    save_mat(tmp_path / "tvg.mat", weights, kinds=("f", "b"), classes=["liver"])
    _, card = complete_model(read_pretrained(tmp_path / "tvg.mat"), "liver")
    assert [c.name for c in card.classes] == ["liver"]
    assert [band.mean for band in card.bands] == list(RGB_MEAN)


def check_at_once(given, weights, image):
    net, card = complete_model(given, "voc")
    expected = theirs(
        weights,
        image,
        card.arch_options,
        mean=CAFFE_BGR_MEAN,
        is_bgr=True,
        scales=(0.01, 0.0001),
    )
    ours = scores_of(net, card, image)
    assert (ours - expected).abs().max() <= 1e-4 * expected.abs().max()
    plain = theirs(weights, image, card.arch_options, mean=CAFFE_BGR_MEAN, is_bgr=True)
    assert (ours - plain).abs().max() > 1e-2 * plain.abs().max()


def test_the_scales_of_an_fcn_at_once_are_obeyed(weights, image, tmp_path):
    weights = {**weights, **random_head(21, 2)}
    scales = {"scale_pool4": torch.full((512,), 0.01), "scale_pool3": torch.full((256,), 0.0001)}
    save_caffe(tmp_path / "atonce", {**weights, **{f"{n}.weight": s for n, s in scales.items()}})
    check_at_once(read_pretrained(tmp_path / "atonce"), weights, image)


def test_the_published_fcn_at_once_is_known_by_its_sum(weights, image, tmp_path, monkeypatch):
    weights = {**weights, **random_head(21, 2)}
    path = tmp_path / "fcn8s-atonce_from_caffe.pth"
    torch.save(weights, path)
    known = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr("fcntile.models.pretrained.published.AT_ONCE_MD5", known)
    check_at_once(read_pretrained(path), weights, image)


def changed(weights, name, change):
    weights[name] = change(weights[name].clone())
    return weights


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda w: w.pop("upscore.weight") is not None and w,
            "has upsampling kernels of no px, fcn32s has",
        ),
        (lambda w: {**w, "upscore.bias": torch.ones(21)}, "that fcn32s does not have.* upscore"),
        (lambda w: {**w, "ctx.weight": torch.ones(21, 21, 3, 3)}, "such as ctx"),
        (lambda w: w.pop("fc7.weight") is not None and w, "not complete: it lacks conv7"),
        (lambda w: changed(w, "fc6.bias", lambda b: b * torch.nan), "not finite"),
    ],
)
def test_what_the_net_would_not_compute_is_refused(change, words, weights, tmp_path):
    torch.save(change({**weights, **random_head(21, 0)}), tmp_path / "fcn.pth")
    with pytest.raises(ModelError, match=words):
        complete_model(read_pretrained(tmp_path / "fcn.pth"), "voc")


def imported(path, weights):
    """Make a model of weights, some of which are None: those are left out."""
    torch.save({name: w for name, w in weights.items() if w is not None}, path)
    return complete_model(read_pretrained(path), "voc")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"score_fr.bias": None}, "not complete: it lacks score_fr.bias of fcn8s"),
        ({"score_fr.bias": hollow()}, r"has \(\) in score_fr.bias, fcn8s has \(21,\)"),
        (
            {"fc6.weight": hollow(16, 512, 5, 5)},
            r"has \(16, 512, 5, 5\) in conv6.weight, fcn8s has \(16, 512, 7, 7\)",
        ),
        ({"fc6.weight": hollow(0, 25088)}, "option head of fcn8s is 0"),
        ({"scale_pool4.weight": hollow(7)}, "has 7 numbers in scale_pool4, wanted are 1 or 512"),
        ({"scale_pool3.weight": hollow(0)}, "has 0 numbers in scale_pool3, wanted are 1 or 256"),
        ({"upscore2.weight": hollow(0, 0, 4, 4)}, r"upsampling kernels of \[4, 16\] px"),
        ({"upscore2.weight": hollow(21, 21, 4, 4) / 0}, "damaged: upscore2 has values that are"),
        ({"upscore8.weight": hollow(21, 21, 16, 16) + torch.inf}, "damaged: upscore8 has values"),
        ({"stray": hollow(3)}, "does not have, such as stray: use"),
        ({"conv1_1.gamma": hollow(3)}, "does not have, such as conv1_1.gamma: use"),
    ],
)
def test_what_is_odd_in_an_fcn_is_named(change, words, tmp_path):
    with pytest.raises(ModelError, match=words):
        imported(tmp_path / "fcn.pth", {**hollow_vgg(), **random_head(21, 2), **change})


def test_a_classifier_without_biases_is_refused(tmp_path):
    top = {"fc6": (16, 25088), "fc7": (16, 16), "fc8": (1000, 16)}
    weights = {f"{name}.weight": hollow(*shape) for name, shape in top.items()}
    weights |= {"fc6.bias": hollow(16), "fc7.bias": hollow(16)}
    with pytest.raises(ModelError, match=r"it lacks score_fr\.bias of fcn32s"):
        imported(tmp_path / "vgg.pth", {**hollow_vgg(), **weights})


@pytest.mark.parametrize("save", [save_pth, save_mat, save_caffe])
def test_learned_upsampling_is_taken_as_it_is(save, weights, image, tmp_path):
    weights = {**weights, **random_head(21, 2)}
    torch.manual_seed(5)
    for name in ("upscore2", "upscore_pool4", "upscore8"):
        weights = changed(weights, f"{name}.weight", lambda k: k + 0.02 * torch.randn_like(k))
    save(tmp_path / "fcn", weights)
    net, card = complete_model(read_pretrained(tmp_path / "fcn"), "voc")
    assert card.arch_options == {"head": 16, "padding": 100, "upsampling": "learned"}
    is_mat = save is save_mat
    mean = RGB_MEAN if is_mat else CAFFE_BGR_MEAN
    expected = theirs(weights, image, card.arch_options, mean=mean, is_bgr=not is_mat)
    assert (scores_of(net, card, image) - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_learned_kernels_that_cannot_be_told_apart_are_refused(weights, tmp_path):
    weights = {**weights, **random_head(21, 2)}
    weights["first.weight"] = 1.1 * weights.pop("upscore2.weight")
    torch.save(weights, tmp_path / "fcn.pth")
    with pytest.raises(ModelError, match=r"layer first .* call it upscore2 or upscore_pool4"):
        complete_model(read_pretrained(tmp_path / "fcn.pth"), "voc")


def test_a_bias_of_zeros_or_depthwise_kernels_change_nothing(weights, tmp_path):
    weights = {**weights, **random_head(21, 0), "upscore.bias": torch.zeros(21)}
    weights["upscore.weight"] = weights["upscore.weight"][:1, :1].expand(21, 1, 64, 64).clone()
    torch.save(weights, tmp_path / "fcn.pth")
    complete_model(read_pretrained(tmp_path / "fcn.pth"), "voc")


def test_classes_that_nobody_named_are_asked_for(weights, tmp_path):
    torch.save({**weights, **random_head(5, 0)}, tmp_path / "fcn.pth")
    with pytest.raises(ModelError, match=r"scores 5 classes without naming them: .* --classes"):
        complete_model(read_pretrained(tmp_path / "fcn.pth"), "five")


def test_features_alone_are_no_model(weights, tmp_path):
    torch.save(weights, tmp_path / "vgg.pth")
    with pytest.raises(ModelError, match="no scores: use it with fcntile train --init-weights"):
        complete_model(read_pretrained(tmp_path / "vgg.pth"), "vgg")


def test_vgg16_with_its_top_becomes_its_fully_convolutional_classifier(weights, image, tmp_path):
    torch.manual_seed(3)
    top = {"fc6": (16, 25088), "fc7": (16, 16), "fc8": (1000, 16)}
    for name, shape in top.items():
        weights = {
            **weights,
            f"{name}.weight": torch.randn(shape) * (2 / shape[1]) ** 0.5,
            f"{name}.bias": torch.randn(shape[0]),
        }
    hwio = {
        n: [
            weights[f"{n}.weight"].permute(2, 3, 1, 0).numpy()
            if n in NAMES
            else weights[f"{n}.weight"].T.numpy(),
            weights[f"{n}.bias"].numpy(),
        ]
        for n in [*NAMES, *top]
    }
    np.save(tmp_path / "vgg16.npy", hwio, allow_pickle=True)
    net, card = complete_model(read_pretrained(tmp_path / "vgg16.npy"), "imagenet")
    assert (card.arch, len(card.classes)) == ("fcn32s", 1000)
    assert card.classes[7].name == "ImageNet 7"
    square = np.tile(image, (4, 3, 1))[:224, :224]
    x = torch.from_numpy((square[..., ::-1] - BGR_MEAN).astype("f4")).permute(2, 0, 1)[None]
    pool5 = pools(weights, x)[4]
    # TensorFlow flattens rows, columns, channels
    found = pool5.permute(0, 2, 3, 1).reshape(1, -1)
    for name in top:
        found = found @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        found = found if name == "fc8" else found.relu()
    seen = {}
    net.score_fr.register_forward_hook(lambda *args: seen.update(score=args[2]))
    scores_of(net, card, square)
    ours = seen["score"][..., 3, 3]  # where fc6 sees the 7 x 7 maps exactly
    assert (ours - found).abs().max() <= 1e-4 * found.abs().max()


def test_colours_are_those_of_pascal_voc(weights, tmp_path):
    torch.save({**weights, **random_head(21, 0)}, tmp_path / "fcn.pth")
    _, card = complete_model(read_pretrained(tmp_path / "fcn.pth"), "voc")
    known = {"background": (0, 0, 0), "aeroplane": (128, 0, 0), "person": (192, 128, 128)}
    known |= {"tvmonitor": (0, 64, 128), "bicycle": (0, 128, 0), "cow": (64, 128, 0)}
    found = {c.name: c.rgb for c in card.classes}
    assert {name: found[name] for name in known} == known
    assert len(set(found.values())) == 21
