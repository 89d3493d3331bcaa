"""FC-DenseNet, also called Tiramisu: dense blocks down and up, with skips between.

Jegou et al., *The One Hundred Layers Tiramisu* (CVPR workshops 2017, arXiv 1611.09326), built from
its tables with the authors' erratum; and the options of keras-contrib's `DenseNetFCN`.

Two things are not as published. Batch norms use running statistics when they predict, where the
authors use those of the test batch: then a tile's mask would depend on its neighbours in the batch.
And the net gives logits, not probabilities.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fcntile.models.checkpointing import checkpoint
from fcntile.models.registry import Net, register_model
from fcntile.models.upsampling import Crop, Repeat

PAPER = "arXiv 1611.09326"


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 3 x 3 convolution to `growth` new maps, dropout, on all maps before."""

    def __init__(self, inputs: int, growth: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(inputs, growth, 3, padding=1, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, *maps: Tensor) -> Tensor:
        """Return the new maps."""
        new: Tensor = self.dropout(self.conv(self.relu(self.norm(torch.cat(maps, 1)))))
        return new


class DenseBlock(nn.Module):
    """Layers that each see the input and all maps made before them.

    Shape:
        (N, inputs, H, W) -> (N, layers * growth, H, W), the new maps only
    """

    def __init__(
        self,
        layers: int,
        inputs: int,
        growth: int,
        *,
        dropout: float,
        bias: bool,
        checkpointing: bool,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DenseLayer(inputs + n * growth, growth, dropout, bias) for n in range(layers)
        )
        self._checkpointing = checkpointing

    def forward(self, x: Tensor) -> Tensor:
        """Return the new maps."""
        maps = [x]
        for layer in self.layers:
            # what is joined for a layer is joined again, or memory grows with the layers' square
            is_short = self._checkpointing and self.training
            maps.append(checkpoint(layer, *maps) if is_short else layer(*maps))
        return torch.cat(maps[1:], 1)


def transition_down(inputs: int, outputs: int, dropout: float, bias: bool) -> nn.Sequential:
    """Return batch norm, ReLU, 1 x 1 convolution, dropout and max pooling by 2."""
    return nn.Sequential(
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, outputs, 1, bias=bias),
        nn.Dropout(dropout),
        nn.MaxPool2d(2),
    )


def transition_up(kind: str, inputs: int, outputs: int, relu: bool) -> tuple[nn.Sequential, int]:
    """Return the layers that double height and width, and the channels they give.

    Args:
        kind: "deconv", which gives a last row and column more, "repeat" or "subpixel".
        inputs: channels.
        outputs: channels; "repeat" keeps the inputs.
        relu: whether a ReLU follows the transposed convolution, as in keras-contrib.
    """
    if kind == "repeat":
        return nn.Sequential(Repeat(2)), inputs
    if kind == "deconv":
        layers: list[nn.Module] = [nn.ConvTranspose2d(inputs, outputs, 3, stride=2)]
        return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else [])), outputs
    if kind != "subpixel":
        raise ValueError(f"upsampling {kind!r} is none of deconv, repeat, subpixel")
    if outputs % 4:
        raise ValueError(f"subpixel wants a multiple of 4 maps, not {outputs}")
    layers = [
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=not relu),
        nn.ReLU(inplace=True),
        nn.PixelShuffle(2),
        nn.Conv2d(outputs // 4, outputs, 3, padding=1, bias=not relu),
        nn.ReLU(inplace=True),
    ]
    return nn.Sequential(*layers), outputs


class FCDenseNet(Net):
    """Dense blocks with transitions down, a bottleneck, and dense blocks with transitions up.

    A transition up enlarges only the maps that the block before it made, so their number stays
    bounded; the skip brings the rest.

    Args:
        bands: channels of the input.
        classes: channels of the output.
        growth: maps that a layer makes.
        layers: of each block: a number for all, or one for each block down and the bottleneck,
            mirrored on the way up.
        stem: channels of the first convolution.
        reduction: share of the maps that a transition down drops.
        dropout: share of activations dropped in training.
        upsampling: "deconv" (3 x 3, stride 2), "repeat" or "subpixel".
        early_transition: work at half the resolution: a transition down after the first
            convolution, one up before the scores.
        style: "paper", or "keras-contrib": batch norm and ReLU after the first convolution, no
            biases, ReLU after transposed convolutions, no dropout in transitions.
        checkpointing: train in less memory: layers are computed again for the backward pass.

    Shape:
        (N, bands, H, W) float32, normalised -> (N, classes, H, W) logits; for any H and W with
        "deconv", else for multiples of the stride
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        growth: int = 16,
        layers: int | Sequence[int] = 5,
        stem: int = 48,
        reduction: float = 0.0,
        dropout: float = 0.2,
        upsampling: str = "deconv",
        early_transition: bool = False,
        style: str = "paper",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if style not in ("paper", "keras-contrib"):
            raise ValueError(f"style {style!r} is neither paper nor keras-contrib")
        is_paper = style == "paper"
        *down, bottleneck = [layers] * 6 if isinstance(layers, int) else layers
        if not down:
            raise ValueError("layers wants a number for each block down and for the bottleneck")
        dense: dict[str, Any] = {
            "dropout": dropout,
            "bias": is_paper,
            "checkpointing": checkpointing,
        }
        narrowing: dict[str, Any] = {"dropout": dropout if is_paper else 0.0, "bias": is_paper}

        def transition(inputs: int) -> tuple[nn.Sequential, int]:
            outputs = int(inputs * (1 - reduction))
            return transition_down(inputs, outputs, **narrowing), outputs

        self.stem = nn.Sequential(nn.Conv2d(bands, stem, 3, padding=1, bias=is_paper))
        if not is_paper:
            self.stem.extend([nn.BatchNorm2d(stem), nn.ReLU(inplace=True)])
        maps, skips = stem, []
        self.early_down: nn.Module | None = None
        if early_transition:
            self.early_down, maps = transition(maps)
        self.down, self.transitions_down = nn.ModuleList(), nn.ModuleList()
        for number in down:
            self.down.append(DenseBlock(number, maps, growth, **dense))
            maps += number * growth
            skips.append(maps)
            narrower, maps = transition(maps)
            self.transitions_down.append(narrower)
        self.bottleneck = DenseBlock(bottleneck, maps, growth, **dense)
        new = bottleneck * growth
        self.up, self.transitions_up, self.crop = nn.ModuleList(), nn.ModuleList(), Crop(0)
        for number, skip in zip(reversed(down), reversed(skips), strict=True):
            wider, new = transition_up(upsampling, new, new, not is_paper)
            self.transitions_up.append(wider)
            maps = new + skip
            self.up.append(DenseBlock(number, maps, growth, **dense))
            new = number * growth
            maps += new
        self.early_up: nn.Module | None = None
        if early_transition:
            outputs = maps if is_paper else growth
            self.early_up, maps = transition_up(upsampling, maps, outputs, not is_paper)
        self.score = nn.Conv2d(maps, classes, 1, bias=is_paper)
        self.apply(_start)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the size of `x`."""
        image, skips = x, []
        x = self.stem(x)
        if self.early_down is not None:
            x = self.early_down(x)
        for block, transition in zip(self.down, self.transitions_down, strict=True):
            x = torch.cat([x, block(x)], 1)
            skips.append(x)
            x = transition(x)
        new = self.bottleneck(x)
        for transition, block in zip(self.transitions_up, self.up, strict=True):
            skip = skips.pop()
            x = torch.cat([self.crop(transition(new), skip), skip], 1)
            new = block(x)
        x = torch.cat([x, new], 1)
        if self.early_up is not None:
            x = self.crop(self.early_up(x), image)
        score: Tensor = self.score(x)
        return score


def _start(layer: nn.Module) -> None:
    """Start kernels as the authors do: uniform after He et al. (arXiv 1502.01852)."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


@register_model("fc-densenet56", FCDenseNet, PAPER)
def fc_densenet56(bands: int, classes: int, **options: Any) -> FCDenseNet:
    """Return FC-DenseNet56: growth 12, 4 layers a block."""
    return FCDenseNet(bands, classes, **{"growth": 12, "layers": 4, **options})


@register_model("fc-densenet67", FCDenseNet, PAPER)
def fc_densenet67(bands: int, classes: int, **options: Any) -> FCDenseNet:
    """Return FC-DenseNet67: growth 16, 5 layers a block."""
    return FCDenseNet(bands, classes, **{"growth": 16, "layers": 5, **options})


@register_model("fc-densenet103", FCDenseNet, PAPER)
def fc_densenet103(bands: int, classes: int, **options: Any) -> FCDenseNet:
    """Return FC-DenseNet103: growth 16, 4 to 15 layers a block."""
    shape = {"growth": 16, "layers": (4, 5, 7, 10, 12, 15)}
    return FCDenseNet(bands, classes, **{**shape, **options})
