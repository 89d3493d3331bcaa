"""Rewrites of layers that leave the function of a net alone."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fcntile.models.bfloat16 import Exact, Packed
from fcntile.models.narrow import NarrowMaxPool, NarrowUpsample
from fcntile.models.upsampling import SubPixel
from fcntile.models.winograd import Winograd

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def prepare(
    net: nn.Module, device: torch.device, precision: torch.dtype = torch.float32, classes: int = 0
) -> nn.Module:
    """Return a copy of a net, in evaluation mode, that computes the same faster.

    Batch norms are folded and maps are channels last. In float32 on CPUs, wide convolutions take
    fewer multiplications, and layers are replaced that torch computes slowly on few channels. In
    bfloat16 on CPUs weights are laid out once, at the first call, and scores stay in float32; on
    other devices weights are rounded once. What is left to autocast still wants it. On CPUs,
    weights that stay as they are, are shared with `net`.

    A net with switches stays as it is in float32: where a maximum was hangs on the last bits, and
    so does where its value is put.

    Args:
        net: (N, bands, H, W) -> (N, classes, H, W).
        device: where it is to run.
        precision: dtype that it computes in there.
        classes: channels of its scores.
    """
    on_cpu = device.type == "cpu"
    if has_switches(net) and precision == torch.float32:
        return AsItIs(net if on_cpu else copy.deepcopy(net).to(device))
    if on_cpu and precision == torch.float32:
        net = _rewrite(net, _in_float32)
    else:
        if on_cpu:
            net = _rewrite(net, as_convolution)
        net = _rewrite(fold_batch_norm(net), _rectify_in_place)
        if not on_cpu:
            net = copy.deepcopy(net).to(device)  # `to` would take the weights of `net` along
            cast_weights(net, precision)
        elif precision == torch.bfloat16:
            rule = partial(_in_bfloat16, classes=classes, fuses=not has_switches(net))
            net = _rewrite(_rewrite(net, rule), _on_few_channels)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def has_switches(net: nn.Module) -> bool:
    """Tell whether a net puts values where its poolings found their maxima."""
    return any(isinstance(layer, nn.MaxUnpool2d) for layer in net.modules())


def as_run(net: nn.Module) -> nn.Module:
    """Return a net with maps no smaller than those of what `prepare` makes, without copies."""

    def rule(layers: nn.Module) -> nn.Module:
        return _rectify_in_place(_fold(layers, lambda conv, norm: conv))

    return net if has_switches(net) else _rewrite(net, rule)


class AsItIs(nn.Module):
    """A net that computes what it always did to the last bit: as loaded, on contiguous maps.

    Args:
        net: (N, bands, H, W) -> (N, classes, H, W).
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of `net`."""
        logits: Tensor = self.net(x.contiguous())
        return logits


def cast_weights(net: nn.Module, precision: torch.dtype) -> None:
    """Round a net's convolutions to a precision in place, as autocast would in every pass."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.to(precision)


def fold_batch_norm(net: M) -> M:
    """Return a copy of a net, in evaluation mode, whose batch norms are inside its convolutions.

    A convolution followed by a batch norm becomes one convolution: neighbours in an
    `nn.Sequential`, and those that a module names in its attribute `normed`. Weights that stay as
    they are, are shared with `net`.
    """
    return _rewrite(net, _fold)


def _fold(
    layers: nn.Module, fuse: Callable[[nn.Conv2d, nn.BatchNorm2d], nn.Conv2d] = fuse_conv_bn_eval
) -> nn.Module:
    is_chain = isinstance(layers, nn.Sequential)
    pairs = pairwise(list(layers._modules)) if is_chain else getattr(layers, "normed", {}).items()
    for first, second in pairs:
        a, b = layers._modules[first], layers._modules[second]
        if isinstance(a, nn.Conv2d) and isinstance(b, nn.BatchNorm2d):
            layers._modules[first] = fuse(a, b)
            layers._modules[second] = nn.Identity()
    return layers


def _rectify_in_place(layers: nn.Module) -> nn.Module:
    """Let a ReLU overwrite the output of a convolution, which nothing else sees."""
    for (_, conv), (relu, after) in _neighbours(layers):
        if isinstance(conv, nn.Conv2d) and type(after) is nn.ReLU:
            layers._modules[relu] = nn.ReLU(inplace=True)
    return layers


def _in_float32(layers: nn.Module) -> nn.Module:
    """Make layers ready for CPUs; one after the other, so that few weights are there twice."""
    for name, layer in list(layers.named_children()):
        layers._modules[name] = as_convolution(layer)
    layers = _rectify_in_place(_fold(layers))
    for name, layer in list(layers.named_children()):
        layers._modules[name] = _on_few_channels(_multiply_less(layer))
    return layers


def _in_bfloat16(layers: nn.Module, classes: int, *, fuses: bool) -> nn.Module:
    """Pack convolutions, with the ReLU after them if `fuses`, but keep scores in float32."""
    scores = classes * (layers.shuffle.upscale_factor**2 if isinstance(layers, SubPixel) else 1)
    for (first, conv), (second, after) in _neighbours(layers):
        if fuses and Packed.suits(conv) and type(after) is nn.ReLU:
            layers._modules[first] = Packed(conv, rectify=True)
            layers._modules[second] = nn.Identity()
    for name, layer in list(layers.named_children()):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.out_channels == scores:
            layers._modules[name] = Exact(layer)
        elif Packed.suits(layer):
            layers._modules[name] = Packed(layer, rectify=False)
    return layers


def _neighbours(
    layers: nn.Module,
) -> Iterator[tuple[tuple[str, nn.Module], tuple[str, nn.Module]]]:
    """Yield pairs of layers that follow one another, and their names."""
    if isinstance(layers, nn.Sequential):
        chain = layers.named_children()
        yield from pairwise([(k, v) for k, v in chain if not isinstance(v, nn.Identity)])


def as_convolution(layer: nn.Module) -> nn.Module:
    """Return a transposed convolution of stride 1 as the convolution that it is, else the layer.

    Its kernels are turned by half a turn, and it pads what the other cuts off (Dumoulin and Visin,
    arXiv 1603.07285, relationship 9).
    """
    if not (
        isinstance(layer, nn.ConvTranspose2d)
        and type(layer).forward is nn.ConvTranspose2d.forward
        and layer.kernel_size[0] == layer.kernel_size[1]
        and layer.stride == layer.dilation == (1, 1)
        and isinstance(layer.padding, tuple)
        and layer.padding[0] == layer.padding[1] < layer.kernel_size[0]
        and layer.output_padding == (0, 0)
        and layer.groups == 1
    ):
        return layer
    kernel = layer.kernel_size[0]
    padding = kernel - 1 - layer.padding[0]
    conv = nn.Conv2d(layer.in_channels, layer.out_channels, kernel, padding=padding, device="meta")
    conv.weight = nn.Parameter(layer.weight.transpose(0, 1).flip(2, 3))
    conv.bias = layer.bias
    return conv.eval()


def _multiply_less(layer: nn.Module) -> nn.Module:
    return Winograd(layer) if Winograd.suits(layer) else layer


def _on_few_channels(layer: nn.Module) -> nn.Module:
    if NarrowMaxPool.suits(layer):
        return NarrowMaxPool()
    if NarrowUpsample.suits(layer):
        return NarrowUpsample(layer)
    return layer


def _rewrite(net: M, rule: Callable[[nn.Module], nn.Module]) -> M:
    """Return a copy of a net whose modules went through `rule`, the innermost first."""
    net = copy.copy(net)
    net._modules = {name: child and _rewrite(child, rule) for name, child in net._modules.items()}
    return rule(net)  # type: ignore[return-value]
