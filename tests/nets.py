"""Nets for tests and benchmarks, small enough to be sure of, and model files that hold them."""

import torch
from torch import nn

from fcntile.models import list_models, register_model
from fcntile.models.card import Band, Card, ModelClass
from fcntile.models.model_file import save_model
from fcntile.models.registry import Net, create_model


class PixelNet(Net):
    """One 1 x 1 convolution: a pixel's logits depend on that pixel only."""

    def __init__(self, bands, classes):
        super().__init__()
        self.score = nn.Conv2d(bands, classes, 1)

    def forward(self, x):
        return self.score(x)


class ProbeNet(Net):
    """Four 3 x 3 convolutions and bilinear upsampling: cheap, so all that is not the net shows."""

    def __init__(self, bands, classes):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(bands, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, classes, 1),
            nn.Upsample(scale_factor=4, mode="bilinear"),
        )

    def forward(self, x):
        return self.layers(x)


NETWORKS = list_models()  # those of fcntile
# Options that make each network thin, at full depth.
NARROW = {"width": 2, "head": 4}
DENSE = {"growth": 2, "stem": 4}
THIN = {
    "fcn32s": NARROW,
    "fcn16s": NARROW,
    "fcn8s": NARROW,
    "fcn8s-atonce": NARROW,
    "fcn8s-small": NARROW,
    "fcn2s-small": NARROW,
    "deconvnet": NARROW,
    "mirror-vgg": NARROW,
    "mirror-vgg-thread": {**NARROW, "size": 64},
    "atrous-vgg16": NARROW,
    "fcn-resnet50": {"width": 2},
    "atrous-resnet50": {"width": 2},
    "full-resolution": {"width": 4, "head": 8},
    "fc-densenet56": DENSE,
    "fc-densenet67": DENSE,
    "fc-densenet103": DENSE,
    "deep-fcn": NARROW,
}

register_model("pixel")(PixelNet)
register_model("probe")(ProbeNet)

COLORS = ["#000000", "#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231"]


def card(arch, *, bands=3, classes=3, values=None, dtype="uint8", mean=128.0, std=64.0, **more):
    names = ["red", "green", "blue"] if bands == 3 else [f"band{i}" for i in range(bands)]
    return Card(
        name=f"test-{arch}",
        arch=arch,
        bands=tuple(Band(name, mean, std) for name in names),
        dtype=dtype,
        classes=tuple(
            ModelClass(f"class {i}", COLORS[i % len(COLORS)], value)
            for i, value in enumerate(values or [None] * classes)
        ),
        **more,
    )


def save_test_model(path, arch, *, seed=0, **more):
    """Write a model file with random weights; those of `pixel` are small integers.

    With integers, a mean of 128 and a deviation of 64, its logits of uint8 pixels are exact in
    float32: any order of operations gives the same bits.
    """
    torch.manual_seed(seed)
    made = card(arch, **more)
    net = create_model(arch, len(made.bands), len(made.classes), **made.arch_options)
    if arch == "pixel":
        with torch.no_grad():
            for p in net.parameters():
                p.copy_(torch.randint(-8, 9, p.shape))
    save_model(path, net, made)
    return path
