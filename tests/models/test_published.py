"""Sizes of the networks, against the published ones.

Counts of parameters and operations are those of the papers' and projects' nets, built and counted
layer by layer elsewhere (docs/models.md says where each comes from).
"""

import pytest
import torch

from fcntile.models.reach import input_interval
from fcntile.models.registry import build_on_meta
from fcntile.models.summary import layers, summarise

CAFFE = {"padding": 100, "upsampling": "learned"}  # dense kernels between classes, as in the files
KERAS = {"style": "keras-contrib"}
PUBLISHED = [
    # name, options, parameters for 21 and 2 classes, GMAC, receptive field, stride, halo
    ("fcn32s", CAFFE, 136_152_917, 134_285_122, 190.19, 436, 32, 224),
    ("fcn16s", CAFFE, 134_815_994, 134_273_924, 190.28, 468, 32, 224),
    ("fcn8s", CAFFE, 134_489_759, 134_271_430, 190.37, 468, 32, 224),
    ("fcn8s", {"padding": 100}, 134_368_799, 134_270_854, 189.77, 468, 32, 224),
    ("fcn8s", {}, 134_368_799, 134_270_854, 110.86, 468, 32, 224),
    ("deconvnet", {}, 251_805_653, 251_804_418, 192.15, 788, 32, 384),
    ("mirror-vgg-thread", {"size": 512}, 328_845_653, 328_844_418, 173.83, 512, 64, None),
    ("full-resolution", {}, 3_294_521, 3_275_046, 862.98, 99, 1, 49),
    ("fc-densenet56", {}, 1_378_725, 1_375_058, 47.09, 826, 32, 416),
    ("fc-densenet67", {}, 3_466_133, 3_460_642, 109.96, 1016, 32, 512),
    ("fc-densenet103", {}, 9_324_661, 9_319_778, 105.54, 2294, 32, 1152),
    ("fc-densenet103", KERAS, 9_321_504, 9_316_640, 105.54, 2294, 32, 1152),
    ("atrous-vgg16", {"output_stride": 32}, 134_346_581, 134_268_738, 110.80, 436, 32, 224),
    ("atrous-vgg16", {}, 134_346_581, 134_268_738, 202.67, 404, 16, 208),
    ("fcn-resnet50", {}, 23_577_621, 23_538_690, 20.10, 515, 32, 288),
    ("atrous-resnet50", {}, 23_577_621, 23_538_690, 31.61, 499, 16, 256),
]


@pytest.mark.parametrize(
    ("name", "options", "many", "few", "gmac", "field", "stride", "halo"), PUBLISHED
)
def test_the_table_of_networks(name, options, many, few, gmac, field, stride, halo):
    found = summarise(name, options)
    assert found.parameters == many
    assert summarise(name, options, classes=2).parameters == few
    assert found.gmac_512 == gmac
    assert (found.receptive_field, found.stride, found.halo) == (field, stride, halo)


@pytest.mark.parametrize(
    ("name", "classes", "options", "count"),
    [
        ("deconvnet", 21, {"batch_norm": False}, 251_772_245),
        ("mirror-vgg-thread", 2, {}, 251_771_010),
        ("mirror-vgg-thread", 2, {"size": 1024}, 343_003_266),
        ("full-resolution", 6, {}, 3_279_146),
        ("fc-densenet56", 11, {}, 1_376_795),
        ("fc-densenet67", 11, {}, 3_463_243),
        ("fc-densenet103", 11, {}, 9_322_091),
        ("fc-densenet103", 11, KERAS, 9_318_944),
        ("fc-densenet103", 11, {**KERAS, "upsampling": "repeat"}, 8_067_088),
        ("fc-densenet103", 11, {**KERAS, "upsampling": "subpixel"}, 9_630_928),
        ("fc-densenet103", 1, {**KERAS, "layers": 4}, 2_288_320),
    ],
)
def test_more_published_counts(name, classes, options, count):
    assert summarise(name, options, classes=classes).parameters == count


def test_the_statistics_of_batch_norms_are_counted_apart():
    def statistics(name):
        net = build_on_meta(name, 3, 21, {})
        return sum(b.numel() for n, b in net.named_buffers() if "running" in n)

    assert statistics("deconvnet") == 33_408
    assert statistics("fcn-resnet50") == statistics("atrous-resnet50") == 53_120
    net = build_on_meta("fc-densenet103", 3, 11, {})  # the paper counts them: 9.4 million
    kept = [*net.parameters(), *(b for n, b in net.named_buffers() if "running" in n)]
    assert sum(p.numel() for p in kept) == 9_425_163


@pytest.mark.parametrize(
    ("name", "options", "halo"),
    [
        ("fcn32s", {"padding": 100}, 221),
        ("fcn8s", {"padding": 100}, 221),
        ("fcn8s", {}, 218),  # the Caffe nets' pools lie 3 px off the corner
        ("deconvnet", {}, 378),
        ("full-resolution", {}, 49),
        ("fc-densenet56", {}, 413),
        ("fc-densenet67", {}, 508),
        ("fc-densenet103", {}, 1147),
        ("atrous-vgg16", {}, 202),
    ],
)
def test_halos_before_they_are_rounded_up(name, options, halo):
    assert build_on_meta(name, 3, 2, options).reach.halo == halo


@pytest.mark.parametrize(
    ("name", "options", "reach"),
    [
        ("fcn32s", {"padding": 100}, 233),
        ("fcn16s", {"padding": 100}, 241),
        ("fcn8s", {"padding": 100}, 245),
        ("deconvnet", {}, 403),
        ("full-resolution", {}, 49),
        ("fc-densenet56", {}, 439),
        ("fc-densenet103", {}, 1171),
        ("atrous-vgg16", {}, 209),
    ],
)
def test_the_farthest_pixel_that_any_pixel_sees(name, options, reach):
    net = build_on_meta(name, 3, 2, options)
    intervals = [(o, *input_interval(net, o, o)) for o in range(net.stride)]
    assert max(max(o - first, last - o) for o, first, last in intervals) == reach


def test_vgg16_is_all_there():
    net = build_on_meta("atrous-vgg16", 3, 1000, {"output_stride": 32})
    assert sum(p.numel() for p in net.encoder.parameters()) == 14_714_688
    assert sum(p.numel() for p in net.parameters()) == 138_357_544
    macs = [layer.macs for layer in layers(net, 3, 512, 512) if layer.name.startswith("encoder")]
    assert round(sum(macs) / 1e9, 2) == 80.18


def test_the_bottlenecks_at_224_px():
    def gmac(name, classes):
        net = build_on_meta(name, 3, classes, {})
        return round(sum(layer.macs for layer in layers(net, 3, 224, 224)) / 1e9, 2)

    assert gmac("deconvnet", 21) == 32.75
    assert gmac("mirror-vgg-thread", 2) == 32.68
    large = build_on_meta("mirror-vgg-thread", 3, 2, {"size": 1024})
    assert round(sum(layer.macs for layer in layers(large, 3, 1024, 1024)) / 1e9, 1) == 696.8
    net = build_on_meta("deconvnet", 3, 21, {})
    shapes = {layer.name: layer.shape for layer in layers(net, 3, 224, 224)}
    assert shapes["fc7.conv7"] == (4096, 1, 1)
    assert shapes["fc6_deconv.deconv6"] == (512, 7, 7)


def test_convolutions_are_counted():
    """56 in FC-DenseNet56 and so on: that is what the names mean."""
    for depth in (56, 67, 103):
        net = build_on_meta(f"fc-densenet{depth}", 3, 21, {})
        kinds = (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
        assert sum(isinstance(m, kinds) for m in net.modules()) == depth
