"""Stages of a net: the layers whose feature maps tell how it works, and these maps.

Which layers those are follows from the net itself, whatever it is called: the last one before maps
change their size or are pooled, those that enlarge maps, the widest ones where maps are smallest,
and the scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from fcntile.models.reach import layer_strides
from fcntile.models.summary import Layer
from fcntile.models.upsampling import Complete, Crop, ZeroFill

MAX_STAGES = 16  # more are too many to look at
WIDEST = 3  # layers shown where maps are smallest
AGAIN = (Complete, Crop, nn.ZeroPad2d, nn.Dropout, nn.Identity)  # the same map, but for its rim
POINTWISE = (nn.ReLU, nn.BatchNorm2d)
POOLINGS = (nn.MaxPool2d, nn.AvgPool2d)
ENLARGING = (nn.Upsample, nn.MaxUnpool2d, nn.PixelShuffle, ZeroFill)
# What to leave out first if there are too many: of equals those with the smallest maps.
FIXED, WIDE, LEARNED, LAST, SCORE = range(1, 6)


@dataclass(frozen=True)
class Stage:
    """A layer's output for one window.

    Args:
        name: path of the layer in the net, as in its weights.
        channels: of its output.
        height: of its output.
        width: of its output.
        stride: px of the image from one value of it to the next.
        maps: (shown, height, width) float32 on the CPU: all channels in their order, or else those
            of the largest variance, that first.
    """

    name: str
    channels: int
    height: int
    width: int
    stride: int
    maps: Tensor


@dataclass(frozen=True)
class _Group:
    """A layer, and the pointwise ones after it: one map, seen at its end.

    Args:
        head: the layer.
        end: place of the last one in the order of computation.
        shape: of the output: channels, height, width.
    """

    head: nn.Module
    end: int
    shape: tuple[int, int, int]

    @property
    def area(self) -> int:
        return self.shape[1] * self.shape[2]


def choose_stages(
    layers: Sequence[Layer], modules: Mapping[str, nn.Module], limit: int = MAX_STAGES
) -> list[int]:
    """Return which layers to look at, as their places in the order of computation.

    Args:
        layers: of a net, in that order.
        modules: of the net, by name.
        limit: how many at most.
    """
    groups = _groups(layers, modules)
    weights = _importance(groups)
    by_weight = sorted(weights, key=lambda i: (weights[i], groups[i].area, i))
    return [groups[i].end for i in sorted(by_weight[-limit:])]


def _groups(layers: Sequence[Layer], modules: Mapping[str, nn.Module]) -> list[_Group]:
    groups: list[_Group] = []
    for place, layer in enumerate(layers):
        module = modules[layer.name]
        if isinstance(module, AGAIN):
            continue
        if isinstance(module, POINTWISE) and groups and groups[-1].shape == layer.shape:
            groups[-1] = _Group(groups[-1].head, place, layer.shape)
        else:
            groups.append(_Group(module, place, layer.shape))
    return groups


def _importance(groups: Sequence[_Group]) -> dict[int, int]:
    """Return the groups worth a look, and how much."""
    found: dict[int, int] = {}
    last, smallest = len(groups) - 1, min(group.area for group in groups)
    deepest = [
        i for i, g in enumerate(groups) if g.area == smallest and isinstance(g.head, nn.Conv2d)
    ]
    widest = max((groups[i].shape[0] for i in deepest), default=0)
    found |= dict.fromkeys(_some([i for i in deepest if groups[i].shape[0] == widest]), WIDE)
    for i, group in enumerate(groups):
        if i == last or _is_score(group, groups[last]):
            found[i] = SCORE
        elif enlargement := _enlargement(group.head):
            found[i] = enlargement
        elif isinstance(group.head, POOLINGS):
            continue
        elif _ends(group, groups[i + 1]) or i + 1 == last:
            found[i] = LAST
    return found


def _some(places: Sequence[int]) -> list[int]:
    """Return a few of them, evenly, the first and the last among them."""
    count = min(WIDEST, len(places))
    return [places[i * (len(places) - 1) // max(1, count - 1)] for i in range(count)]


def _is_score(group: _Group, last: _Group) -> bool:
    return isinstance(group.head, nn.Conv2d) and group.shape[0] == last.shape[0]


def _enlargement(layer: nn.Module) -> int:
    """Return how important a layer is that enlarges maps; 0 if it does not."""
    if isinstance(layer, ENLARGING):
        return FIXED
    if isinstance(layer, nn.ConvTranspose2d) and max(layer.stride) > 1:
        return LEARNED
    return 0


def _ends(group: _Group, following: _Group) -> bool:
    return group.shape[1:] != following.shape[1:] or isinstance(following.head, POOLINGS)


@torch.inference_mode()
def record(
    net: nn.Module, x: Tensor, layers: Sequence[Layer], places: Sequence[int], maps: int
) -> tuple[list[Stage], Tensor]:
    """Return the stages of a net over one window, and its logits.

    Args:
        net: in evaluation mode, on the device of `x`.
        x: (1, bands, H, W) float32, normalised.
        layers: of the net, in the order of computation.
        places: of the stages in that order.
        maps: how many to keep of each.

    Returns:
        the stages, and (classes, H, W) logits on the device.
    """
    wanted, numbers, strides = set(places), count(), layer_strides(net)
    stages: list[Stage] = []

    def note(layer: nn.Module, inputs: Any, output: Any) -> None:
        place = next(numbers)
        if place in wanted:  # now: the next layer may work in place
            made = output[0] if isinstance(output, tuple) else output
            channels, height, width = made.shape[1:]
            shown, stride = _most_varied(made[0], maps), int(strides[place])
            stages.append(Stage(layers[place].name, channels, height, width, stride, shown))

    leaves = [m for m in net.modules() if not any(True for _ in m.children())]
    hooks = [leaf.register_forward_hook(note) for leaf in leaves]
    try:
        return stages, net(x)[0]
    finally:
        for hook in hooks:
            hook.remove()


def _most_varied(maps: Tensor, number: int) -> Tensor:
    """Return all maps if there are no more than `number`, else those that vary the most."""
    if len(maps) > number:
        maps = maps[maps.flatten(1).var(1, correction=0).topk(number).indices]
    return maps.to("cpu", torch.float32, copy=True)
