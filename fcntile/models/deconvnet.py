"""DeconvNet: VGG16, and its mirror image of unpooling and transposed convolutions.

Noh, Hong and Han, *Learning Deconvolution Network for Semantic Segmentation* (ICCV 2015, arXiv
1505.04366), built from the layer table of the paper. Pooling remembers where each maximum was
(*switches*), and unpooling puts values back there.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fcntile.models.registry import Net, register_model
from fcntile.models.upsampling import Complete, Crop, SwitchUnpooling, make_upsampling
from fcntile.models.vgg import WIDTHS, conv_relu, vgg_block

# Channels of the transposed convolutions after each unpooling, in multiples of `width`.
DECODER = {5: (8, 8, 8), 4: (8, 8, 4), 3: (4, 4, 2), 2: (2, 1), 1: (1, 1)}
BOTTLENECK = 7  # px of the map that fc6 sees whole in a tile of 224 px


class DeconvNet(Net):
    """VGG16 encoder, fc6 and fc7, and a decoder that mirrors them.

    fc6 has no padding, as in the paper, where it sees a tile of 224 px whole; in larger tiles it
    moves over the map, and fc6-deconv brings the map back to its size. The map of a smaller tile is
    completed with zeros. So fc6-deconv adds up one value in a tile of 224 px, up to 49 in one of
    608 px: the net should predict in tiles as large as those it was trained on.

    Args:
        bands: channels of the input.
        classes: channels of the output.
        unpooling: "switches" (the paper's), or one of `UPSAMPLINGS`.
        middle: "valid", or "same" if fc6 keeps the size of the map.
        blocks: of VGG16 and their mirror images; fewer than all five see less ground around.
        width: channels of the first block; 64 in the paper. Every other block scales.
        head: channels of fc6 and fc7; 4096 in the paper.
        batch_norm: normalise after every layer but the scores, as in the paper.
        dropout: share of fc6 and fc7 activations dropped in training; none in the paper.

    Shape:
        (N, bands, H, W) float32, normalised -> (N, classes, H, W) logits
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        unpooling: str = "switches",
        middle: str = "valid",
        blocks: int = 5,
        width: int = 64,
        head: int = 4096,
        batch_norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if middle not in ("valid", "same"):
            raise ValueError(f"middle {middle!r} is neither valid nor same")
        if not 1 <= blocks <= 5:
            raise ValueError(f"{blocks} blocks: wanted is 1 to 5")
        self._blocks = range(1, blocks + 1)
        self._has_switches = unpooling == "switches"
        channels = [bands, *(width * factor for factor in WIDTHS)]
        for n in self._blocks:
            block = vgg_block(
                n, channels[n - 1], channels[n], batch_norm=batch_norm, bias=True, pool=None
            )
            self.add_module(f"block{n}", block)
        self.pool = nn.MaxPool2d(2, return_indices=self._has_switches)
        self.is_tile_bound = is_valid = middle == "valid"
        self.complete, self.crop = Complete(BOTTLENECK if is_valid else 1), Crop(0)
        wide: dict[str, Any] = {"batch_norm": batch_norm, "bias": True}
        if is_valid:
            wide["padding"] = 0
        self.fc6 = conv_relu("6", 7, channels[blocks], head, **wide)
        self.fc7 = conv_relu("7", 1, head, head, **wide)
        self.fc6_deconv = conv_relu("6", 7, head, channels[blocks], transposed=True, **wide)
        self.dropout = nn.Dropout(dropout)
        inputs = channels[blocks]
        for n in reversed(self._blocks):
            unpool = (
                SwitchUnpooling() if self._has_switches else make_upsampling(unpooling, inputs, 2)
            )
            self.add_module(f"unpool{n}", unpool)
            outputs = [width * factor for factor in DECODER[n]]
            self.add_module(f"deblock{n}", deconv_block(n, inputs, outputs, batch_norm))
            inputs = outputs[-1]
        self.score = nn.Conv2d(inputs, classes, 1)
        if batch_norm:
            self.apply(_start)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the size of `x`."""
        switches = {}
        for n in self._blocks:
            x = self.get_submodule(f"block{n}")(x)
            if self._has_switches:
                x, switches[n] = self.pool(x)
            else:
                x = self.pool(x)
        pooled = x
        x = self.dropout(self.fc7(self.dropout(self.fc6(self.complete(pooled)))))
        x = self.crop(self.fc6_deconv(x), pooled)
        for n in reversed(self._blocks):
            unpool = self.get_submodule(f"unpool{n}")
            x = unpool(x, switches[n]) if self._has_switches else unpool(x)
            x = self.get_submodule(f"deblock{n}")(x)
        score: Tensor = self.score(x)
        return score


def deconv_block(
    number: int, inputs: int, outputs: Sequence[int], batch_norm: bool
) -> nn.Sequential:
    """Return transposed 3 x 3 convolutions, the last block first, as DeconvNet counts them."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, channels in enumerate(outputs, 1):
        name = f"{number}_{index}"
        layers[name] = conv_relu(
            name, 3, inputs, channels, batch_norm=batch_norm, bias=True, transposed=True
        )
        inputs = channels
    return nn.Sequential(layers)


@torch.no_grad()
def _start(layer: nn.Module) -> None:
    """Start as the authors do: kernels from N(0, 0.01), shifts of batch norms at 0.001."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.bias is not None:
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.constant_(layer.bias, 0.001)


@register_model("deconvnet", DeconvNet, "arXiv 1505.04366")
def deconvnet(bands: int, classes: int, **options: Any) -> DeconvNet:
    """Return DeconvNet as it was published."""
    return DeconvNet(bands, classes, **options)
