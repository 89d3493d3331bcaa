"""How far a net sees: interval analysis of its layers.

Which input pixels can an interval of output pixels depend on? Each kind of layer answers for
itself; followed from the output to the input along the graph of the net, the answers give the
receptive field and the halo to the pixel, for every size of input at once. Araujo, Norris and Sim
(*Computing Receptive Fields of Convolutional Neural Networks*, 2019, doi 10.23915/distill.00021)
do so for the centre of the field; here both ends are kept, as transposed convolutions and crops
move them.
"""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import torch
from torch import fx, nn

from fcntile.models.upsampling import Complete, Crop, SwitchUnpooling, ZeroFill

Interval = tuple[int, int]  # first and last position along one axis
FAR = 1 << 20  # a position that every stride divides


@dataclass(frozen=True)
class Reach:
    """What a net sees, in px along one axis.

    Args:
        stride: by which the input must move for the output to move likewise, and no less.
        halo: beyond a block of output pixels, both ends at multiples of the stride, that can reach
            into it.
    """

    stride: int
    halo: int


def analyse(net: nn.Module) -> Reach:
    """Return what a net sees, from its layers alone.

    Raises:
        NotImplementedError: if it has a layer or an operation whose intervals are not known.
    """
    graph = _Graph(net)
    first, last = graph.needs(0, graph.stride - 1)
    return Reach(graph.stride, max(-first, last - graph.stride + 1))


def receptive_field(net: nn.Module) -> int:
    """Return the largest receptive field of one output pixel, in px along one axis.

    Raises:
        NotImplementedError: as `analyse` does.
    """
    graph = _Graph(net)
    pixels = [graph.needs(o, o) for o in range(graph.stride)]
    return max(last - first + 1 for first, last in pixels)


def input_interval(net: nn.Module, first: int, last: int) -> Interval:
    """Return the first and last input pixel that output pixels `first` to `last` depend on."""
    return _Graph(net).needs(first, last)


def layer_strides(net: nn.Module) -> list[Fraction]:
    """Return the px between two values of each layer's output, in the order of computation."""
    return [step for node, step in _Graph(net).spacing.items() if node.op == "call_module"]


def trace(net: nn.Module) -> fx.Graph:
    """Return the graph of a net's layers, those of this package whole."""
    return _Tracer().trace(net)


class _Graph:
    """The steps of a net."""

    def __init__(self, net: nn.Module) -> None:
        self._steps = list(trace(net).nodes)
        self._layers = dict(net.named_modules())

    def needs(self, first: int, last: int) -> Interval:
        """Return the input that an interval of the output depends on."""
        wanted: dict[fx.Node, Interval] = {self._steps[-1]: (first, last)}
        for step in reversed(self._steps):
            for source in step.all_input_nodes if step in wanted else []:
                interval = self._step_needs(step, source, wanted[step])
                known = wanted.get(source, interval)
                wanted[source] = min(known[0], interval[0]), max(known[1], interval[1])
        return wanted[self._steps[0]]

    @cached_property
    def spacing(self) -> dict[fx.Node, Fraction]:
        """Px between two values of what each step gives."""
        spacing: dict[fx.Node, Fraction] = {}
        for step in self._steps:
            spacing[step] = Fraction(1)
            for source in step.all_input_nodes[:1]:
                far = self._step_needs(step, source, (FAR, FAR))[0]
                near = self._step_needs(step, source, (0, 0))[0]
                spacing[step] = spacing[source] * Fraction(far - near, FAR)
        return spacing

    @property
    def stride(self) -> int:
        """Smallest number of px that is a whole number of steps on every grid of the net."""
        return math.lcm(*(space.numerator for space in self.spacing.values()))

    def _step_needs(self, step: fx.Node, source: fx.Node, interval: Interval) -> Interval:
        """Return what a step needs from one of its inputs."""
        if step.op == "output" or (step.op == "call_function" and step.target in POINTWISE):
            return interval
        layer = self._layers.get(str(step.target))
        if isinstance(layer, Crop) and source is not step.args[0]:
            return interval  # of the other map only the size matters, and sizes are free
        for kind, rule in RULES.items():
            if isinstance(layer, kind):
                return rule(layer, *interval)
        raise NotImplementedError(f"how far {step.format_node()} sees is not known")


def _window(layer: Any, first: int, last: int) -> Interval:
    """Convolution and pooling: output o sees s o - p to s o - p + d (k - 1)."""
    k, s, p, d = (_along_one_axis(layer, name) for name in WINDOW)
    return first * s - p, last * s - p + d * (k - 1)


def _transposed(layer: Any, first: int, last: int) -> Interval:
    """Transposed convolution: input i adds to s i - p up to s i - p + d (k - 1)."""
    k, s, p, d = (_along_one_axis(layer, name) for name in WINDOW)
    return -(-(first + p - d * (k - 1)) // s), (last + p) // s


def _upsample(layer: nn.Upsample, first: int, last: int) -> Interval:
    scale = layer.scale_factor
    is_known = layer.mode in ("nearest", "bilinear") and not layer.align_corners
    if not is_known or not isinstance(scale, float) or not scale.is_integer():
        raise NotImplementedError(f"how far {layer} sees is not known")
    factor = int(scale)
    if layer.mode == "nearest":
        return first // factor, last // factor
    # half-pixel centres: o lies at (2 o + 1 - f) / 2 f, between two neighbours or on one
    low, high = 2 * first + 1 - factor, 2 * last + 1 - factor
    return low // (2 * factor), -(-high // (2 * factor))


def _same(layer: nn.Module, first: int, last: int) -> Interval:
    return first, last


def _along_one_axis(layer: nn.Module, name: str) -> int:
    value = getattr(layer, name, 1)
    pair = value if isinstance(value, tuple) else (value, value)
    if pair[0] != pair[1]:
        raise NotImplementedError(f"{layer} differs between height and width")
    return int(pair[0])


WINDOW = ("kernel_size", "stride", "padding", "dilation")
RULES: dict[Any, Callable[..., Interval]] = {
    nn.Conv2d: _window,
    nn.MaxPool2d: _window,
    nn.AvgPool2d: _window,
    nn.ZeroPad2d: lambda pad, first, last: (first - pad.padding[0], last - pad.padding[0]),
    nn.ConvTranspose2d: _transposed,
    nn.Upsample: _upsample,
    SwitchUnpooling: lambda _, first, last: (first // 2, last // 2),
    ZeroFill: lambda fill, first, last: (-(-first // fill.factor), last // fill.factor),
    nn.PixelShuffle: lambda shuffle, first, last: (
        first // shuffle.upscale_factor,
        last // shuffle.upscale_factor,
    ),
    Crop: lambda crop, first, last: (first + crop.offset, last + crop.offset),
    Complete: _same,  # at the right and below
    nn.ReLU: _same,
    nn.BatchNorm2d: _same,
    nn.Dropout: _same,
    nn.Identity: _same,
}
POINTWISE = (torch.add, torch.cat, operator.add, operator.iadd, operator.mul, operator.getitem)


class _Tracer(fx.Tracer):
    """Follows a net down to the layers that have a rule."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, tuple(RULES))
