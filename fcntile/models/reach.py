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
        field: largest receptive field of one output pixel.
        halo: beyond a block of output pixels, both ends at multiples of the stride, that can reach
            into it.
    """

    stride: int
    field: int
    halo: int


def analyse(net: nn.Module) -> Reach:
    """Return what a net sees, from its layers alone.

    Raises:
        NotImplementedError: if it has a layer or an operation whose intervals are not known.
    """
    graph = _Tracer().trace(net)
    modules = dict(net.named_modules())

    def needs(first: int, last: int) -> Interval:
        """Return the input that an interval of the output depends on."""
        wanted: dict[fx.Node, Interval] = {}
        for node in reversed(graph.nodes):
            if node.op == "output":
                wanted[node] = (first, last)
            if node not in wanted:
                continue
            if node.op == "placeholder":
                return wanted[node]
            for source in node.all_input_nodes:
                interval = _needs(node, source, modules, wanted[node])
                known = wanted.get(source, interval)
                wanted[source] = min(known[0], interval[0]), max(known[1], interval[1])
        raise NotImplementedError("the output does not depend on the input")

    stride = _stride(graph, modules)
    pixels = [needs(o, o) for o in range(stride)]
    first, last = needs(0, stride - 1)
    return Reach(
        stride=stride,
        field=max(last - first + 1 for first, last in pixels),
        halo=max(-first, last - stride + 1),
    )


def layer_strides(net: nn.Module) -> list[Fraction]:
    """Return the px between two values of each layer's output, in the order of computation.

    Raises:
        NotImplementedError: if it has a layer or an operation whose intervals are not known.
    """
    spacing = _spacing(_Tracer().trace(net), dict(net.named_modules()))
    return [step for node, step in spacing.items() if node.op == "call_module"]


def _stride(graph: fx.Graph, modules: dict[str, nn.Module]) -> int:
    """Return the smallest number of px that is a whole number of steps on every grid of the net."""
    return math.lcm(*(step.numerator for step in _spacing(graph, modules).values()))


def _spacing(graph: fx.Graph, modules: dict[str, nn.Module]) -> dict[fx.Node, Fraction]:
    """Return the px between two values on the grid of each step."""
    spacing: dict[fx.Node, Fraction] = {}
    for node in graph.nodes:
        spacing[node] = Fraction(1)
        for source in node.all_input_nodes[:1]:
            far = _needs(node, source, modules, (FAR, FAR))[0]
            near = _needs(node, source, modules, (0, 0))[0]
            spacing[node] = spacing[source] * Fraction(far - near, FAR)
    return spacing


def _needs(
    node: fx.Node, source: fx.Node, modules: dict[str, nn.Module], interval: Interval
) -> Interval:
    """Return what a step of the graph needs from one of its inputs."""
    if node.op == "output" or (node.op == "call_function" and node.target in POINTWISE):
        return interval
    if node.op == "call_module":
        layer = modules[str(node.target)]
        if isinstance(layer, Crop) and source is not node.args[0]:
            return interval  # of the other map only the size matters, and sizes are free
        for kind, rule in RULES.items():
            if isinstance(layer, kind):
                return rule(layer, *interval)
    raise NotImplementedError(f"how far {node.format_node()} sees is not known")


def _window(layer: Any, first: int, last: int) -> Interval:
    """Convolution and pooling: output o sees s o - p to s o - p + d (k - 1)."""
    k, s, p, d = (_along_one_axis(layer, name) for name in WINDOW)
    return first * s - p, last * s - p + d * (k - 1)


def _transposed(layer: Any, first: int, last: int) -> Interval:
    """Transposed convolution: input i adds to s i - p up to s i - p + d (k - 1)."""
    k, s, p, d = (_along_one_axis(layer, name) for name in WINDOW)
    return -(-(first + p - d * (k - 1)) // s), (last + p) // s


def _upsample(layer: nn.Upsample, first: int, last: int) -> Interval:
    factor = int(layer.scale_factor)  # type: ignore[arg-type]
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
    ZeroFill: lambda fill, first, last: (first // fill.factor, last // fill.factor),
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
