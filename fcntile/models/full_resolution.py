"""The FCN without downsampling: every layer has the resolution of the raster.

Sherrah, *Fully Convolutional Networks for Dense Semantic Labelling of High-Resolution Aerial
Imagery* (arXiv 1606.02585). The layer table is that of an independent implementation
(MRC-Harwell/cytometer, `models.py`, 2018), with one change: its pooling windows are contiguous,
which is not the function of the net with strides; here they are dilated like the convolutions.
"""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from fcntile.models.checkpointing import checkpoint
from fcntile.models.registry import Net, register_model

LAYERS = ((5, 32), (5, 96), (3, 128), (3, 196))  # kernel and channels; dilations 1, 2, 4, 8


class FullResolution(Net):
    """Four dilated convolutions, each with dilated max pooling of stride 1, and a wide head.

    Args:
        bands: channels of the input.
        classes: channels of the output.
        head: channels of the two layers before the scores; 1024 in the paper, a GiB of float32
            each for a tile of 512 px.
        width: channels of the first layer; 32 in the paper. The other three scale.
        height_bands: how many of the bands, the last ones, are heights: they have layers of their
            own, and join the others before the head.
        batch_norm: normalise after every convolution but the scores; not in the paper.
        checkpointing: train in less memory: only what goes between the layers is kept, the rest is
            computed again.

    Shape:
        (N, bands, H, W) float32, normalised -> (N, classes, H, W) logits, for any H and W
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        head: int = 1024,
        width: int = 32,
        height_bands: int = 0,
        batch_norm: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= height_bands < bands:
            raise ValueError(f"{height_bands} of {bands} bands cannot be heights")
        self._split = bands - height_bands
        self._checkpointing = checkpointing
        self.stream = _stream(self._split, width, batch_norm)
        self.height_stream = _stream(height_bands, width, batch_norm) if height_bands else None
        joined = LAYERS[-1][1] * width // 32 * (2 if height_bands else 1)
        self.head = nn.Sequential(
            _layer(5, 3, joined, head, 16, batch_norm, nn.ReLU(inplace=True)),
            _layer(6, 1, head, head, 1, batch_norm),
        )
        self.score = nn.Conv2d(head, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the size of `x`."""
        if self.height_stream is None:
            x = self._run(self.stream, x)
        else:
            colours, heights = x[:, : self._split], x[:, self._split :]
            streams = self._run(self.stream, colours), self._run(self.height_stream, heights)
            x = torch.cat(streams, 1)
        score: Tensor = self.score(self._run(self.head, x))
        return score

    def _run(self, layers: nn.Sequential, x: Tensor) -> Tensor:
        for layer in layers:
            x = checkpoint(layer, x) if self._checkpointing and self.training else layer(x)
        return x


def _stream(bands: int, width: int, batch_norm: bool) -> nn.Sequential:
    """Return the four layers before the head."""
    stream, inputs = nn.Sequential(), bands
    for n, (kernel, channels) in enumerate(LAYERS, 1):
        outputs, dilation = channels * width // 32, 1 << (n - 1)
        layer = _layer(n, kernel, inputs, outputs, dilation, batch_norm, nn.ReLU(inplace=True))
        # after a ReLU zeros never are the maximum; torch's own padding stops at half a kernel
        layer.add_module("pad", nn.ZeroPad2d(dilation))
        layer.add_module("pool", nn.MaxPool2d(3, stride=1, dilation=dilation))
        stream.append(layer)
        inputs = outputs
    return stream


def _layer(
    number: int,
    kernel: int,
    inputs: int,
    outputs: int,
    dilation: int,
    batch_norm: bool,
    *after: nn.Module,
) -> nn.Sequential:
    """Return a convolution that keeps height and width, and what comes after it."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation)
    layers: OrderedDict[str, nn.Module] = OrderedDict({f"conv{number}": conv})
    if batch_norm:
        layers[f"bn{number}"] = nn.BatchNorm2d(outputs)
    for layer in after:
        layers[type(layer).__name__.lower()] = layer
    return nn.Sequential(layers)


@register_model("full-resolution", FullResolution, "arXiv 1606.02585")
def full_resolution(bands: int, classes: int, **options: Any) -> FullResolution:
    """Return the FCN without downsampling."""
    return FullResolution(bands, classes, **options)
