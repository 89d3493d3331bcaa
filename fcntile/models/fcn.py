"""FCN-32s, FCN-16s and FCN-8s: fully convolutional networks on VGG16.

Long, Shelhamer and Darrell, *Fully Convolutional Networks for Semantic Segmentation* (CVPR 2015,
arXiv 1411.4038); layer names follow the authors' Caffe nets. The encoder is configuration D of
Simonyan and Zisserman (arXiv 1409.1556) with its fully connected layers turned into convolutions.

Two things differ from the Caffe nets. Convolutions keep the size of their input ("same" padding),
where Caffe pads the image by 100 px and crops afterwards: same weights, 42 % fewer operations at
512 px. And the upsampling kernels are depthwise: the Caffe kernels are zero off the diagonal, so
the function is the same.
"""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from fcntile.models.registry import Net, register_model

CONVOLUTIONS = (2, 2, 3, 3, 3)  # of the blocks of VGG16


def conv_relu(name: str, kernel: int, inputs: int, outputs: int, batch_norm: bool) -> nn.Sequential:
    """Return a convolution of odd size `kernel` that keeps height and width, and its ReLU."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers[f"conv{name}"] = nn.Conv2d(
        inputs, outputs, kernel, padding=kernel // 2, bias=not batch_norm
    )
    if batch_norm:
        layers[f"bn{name}"] = nn.BatchNorm2d(outputs)
    layers[f"relu{name}"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def vgg_block(
    number: int, convolutions: int, inputs: int, outputs: int, batch_norm: bool
) -> nn.Sequential:
    """Return a block of VGG16: 3 x 3 convolutions, then max pooling by 2."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index in range(1, convolutions + 1):
        name = f"{number}_{index}"
        layers[name] = conv_relu(name, 3, inputs if index == 1 else outputs, outputs, batch_norm)
    layers["pool"] = nn.MaxPool2d(2)
    return nn.Sequential(layers)


def bilinear_upsampling(channels: int, factor: int) -> nn.ConvTranspose2d:
    """Return a frozen transposed convolution that interpolates each channel bilinearly.

    The kernel is that of the FCN paper's `surgery.py`: twice the factor wide, a triangle in each
    direction. Away from the rim it equals interpolation with half-pixel centres; within `factor`
    pixels of the rim it fades to zero.

    Shape:
        (N, channels, H, W) -> (N, channels, factor * H, factor * W)
    """
    size = 2 * factor
    layer = nn.ConvTranspose2d(
        channels, channels, size, stride=factor, padding=factor // 2, groups=channels, bias=False
    )
    if not layer.weight.is_meta:  # a net without memory gets its kernels with its weights
        triangle = 1 - (torch.arange(size) - (factor - 0.5)).abs() / factor
        with torch.no_grad():
            layer.weight.copy_(torch.outer(triangle, triangle).expand_as(layer.weight))
    layer.weight.requires_grad_(False)
    return layer


class FCN(Net):
    """VGG16 encoder, two wide convolutions, and class scores fused from coarse to fine.

    Args:
        bands: channels of the input.
        classes: channels of the output.
        skips: how many finer layers join the scores of the last block: 0 is FCN-32s, 1 adds pool4
            (FCN-16s), 2 pool3 (FCN-8s).
        blocks: of VGG16 before fc6; fewer than all five see less ground around.
        width: channels of the first block; the paper's nets have 64. Every other block scales.
        head: channels of fc6 and fc7; 4096 in the paper.
        batch_norm: normalise after every convolution but the scores; not in the paper, needed to
            train from scratch.
        dropout: share of fc6 and fc7 activations dropped in training.

    Attributes:
        stride: a pooling by 2 in each block.
        halo: px by interval analysis (218 for all five blocks), rounded up to the stride.

    Shape:
        (N, bands, H, W) float32, normalised -> (N, classes, H, W) logits
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        skips: int,
        blocks: int = 5,
        width: int = 64,
        head: int = 4096,
        batch_norm: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if not 0 <= skips < blocks <= len(CONVOLUTIONS):
            raise ValueError(f"{skips} skips and {blocks} blocks: wanted is skips < blocks <= 5")
        self.stride = 1 << blocks
        # a 3 x 3 convolution sees 1 px of its own grid, fc6 sees 3, upsampling 1 of the coarsest
        reach = sum(n << i for i, n in enumerate(CONVOLUTIONS[:blocks])) + (3 + 1 << blocks)
        self.halo = -(-reach // self.stride) * self.stride
        channels = [bands, *(width * factor for factor in (1, 2, 4, 8, 8))]
        self._blocks = []
        for n in range(1, blocks + 1):
            block = vgg_block(n, CONVOLUTIONS[n - 1], channels[n - 1], channels[n], batch_norm)
            self.add_module(f"block{n}", block)
            self._blocks.append(f"block{n}")
        self.fc6 = conv_relu("6", 7, channels[blocks], head, batch_norm)
        self.fc7 = conv_relu("7", 1, head, head, batch_norm)
        self.dropout = nn.Dropout(dropout)
        self.score_fr = nn.Conv2d(head, classes, 1)
        self._skips: list[tuple[str, str]] = []  # names of upsampling and scores, coarse to fine
        upscore = "upscore2"
        for pool in range(blocks - 1, blocks - 1 - skips, -1):
            self._skips.append((upscore, f"score_pool{pool}"))
            self.add_module(upscore, bilinear_upsampling(classes, 2))
            self.add_module(f"score_pool{pool}", nn.Conv2d(channels[pool], classes, 1))
            upscore = f"upscore_pool{pool}"
        self.upscore = bilinear_upsampling(classes, self.stride >> skips)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the size of `x`."""
        pools = []  # (N, width, H / 2, W / 2) to (N, 8 width, H / 32, W / 32)
        for block in self._blocks:
            x = self.get_submodule(block)(x)
            pools.append(x)
        score: Tensor = self.score_fr(self.dropout(self.fc7(self.dropout(self.fc6(pools.pop())))))
        for upscore, score_pool in self._skips:
            finer = self.get_submodule(score_pool)(pools.pop())
            score = self.get_submodule(upscore)(score) + finer
        score = self.upscore(score)
        return score


@register_model("fcn32s")
def fcn32s(bands: int, classes: int, **options: Any) -> FCN:
    """Return FCN-32s: scores at stride 32 only."""
    return FCN(bands, classes, skips=0, **options)


@register_model("fcn16s")
def fcn16s(bands: int, classes: int, **options: Any) -> FCN:
    """Return FCN-16s: scores at strides 32 and 16 (pool4)."""
    return FCN(bands, classes, skips=1, **options)


@register_model("fcn8s")
def fcn8s(bands: int, classes: int, **options: Any) -> FCN:
    """Return FCN-8s: scores at strides 32, 16 (pool4) and 8 (pool3)."""
    return FCN(bands, classes, skips=2, **options)


@register_model("fcn8s_small")
def fcn8s_small(bands: int, classes: int, **options: Any) -> FCN:
    """Return an FCN-8s of a hundredth of the operations, with batch norm: trains from scratch."""
    small = {"width": 12, "head": 32, "batch_norm": True, "dropout": 0.1}
    return FCN(bands, classes, skips=2, **{**small, **options})


@register_model("fcn2s_small")
def fcn2s_small(bands: int, classes: int, **options: Any) -> FCN:
    """Return an FCN of two blocks, with scores at strides 4 and 2 (pool1).

    It sees 22 px around, where FCN-8s sees 218: for classes that are a few pixels across.
    """
    small = {"blocks": 2, "width": 32, "head": 128, "batch_norm": True, "dropout": 0.1}
    return FCN(bands, classes, skips=1, **{**small, **options})
