"""What a net is made of, for any size of input, without computing or allocating anything.

The net runs on torch's meta device: its tensors have shapes and no values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fcntile.errors import OptionError
from fcntile.models.registry import Net, build_on_meta, find_network

BANDS, CLASSES, TILE = 3, 21, 512  # of the table of networks: those of the papers


@dataclass(frozen=True)
class Layer:
    """One layer in the order of computation.

    Args:
        name: path in the net, as in its weights.
        kind: of layer.
        shape: of its output for one tile: channels, height, width.
        parameters: its weights, trained or fixed.
        macs: multiply-accumulates of a convolution for one tile; 0 for other kinds.
    """

    name: str
    kind: str
    shape: tuple[int, int, int]
    parameters: int
    macs: int

    @property
    def bytes(self) -> int:
        """Size of the output for one tile in float32."""
        return 4 * self.shape[0] * self.shape[1] * self.shape[2]


def layers(net: Net, bands: int, height: int, width: int) -> list[Layer]:
    """Return the layers of a net on the meta device, as a tile passes them.

    Args:
        net: on the meta device.
        bands: channels of the tile.
        height: of the tile in px.
        width: of the tile in px.

    Raises:
        OptionError: if the net does not take that size.
    """
    if net.size and (height, width) != (net.size, net.size):
        raise OptionError(f"the net takes tiles of {net.size} px only, not {height} x {width}")
    found: list[Layer] = []

    def note(name: str, layer: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        made = output[0] if isinstance(output, tuple) else output
        _, channels, rows, columns = made.shape
        parameters = sum(p.numel() for p in layer.parameters())
        shape = (channels, rows, columns)
        macs = _macs(layer, inputs[0], made)
        found.append(Layer(name, type(layer).__name__, shape, parameters, macs))

    hooks = [
        layer.register_forward_hook(lambda m, i, o, name=name: note(name, m, i, o))
        for name, layer in net.named_modules()
        if not any(True for _ in layer.children())
    ]
    refusal = OptionError(
        f"the net takes no tile of {height} x {width} px: use multiples of {net.stride}"
    )
    try:
        with torch.no_grad():
            logits = net.eval()(torch.empty(1, bands, height, width, device="meta"))
    except RuntimeError as error:
        if height % net.stride or width % net.stride:
            raise refusal from error
        reason = str(error).splitlines()[0]
        raise OptionError(f"no tile of {height} x {width} px: {reason}") from error
    finally:
        for hook in hooks:
            hook.remove()
    if logits.shape[-2:] != (height, width):
        raise refusal
    return found


def _macs(layer: nn.Module, given: Tensor, made: Tensor) -> int:
    """Return the multiply-accumulates of one layer: each kernel tap at each place it is put."""
    if isinstance(layer, nn.Conv2d):
        return made[0, 0].numel() * layer.weight.numel()
    if isinstance(layer, nn.ConvTranspose2d):
        return given[0, 0].numel() * layer.weight.numel()
    return 0


@dataclass(frozen=True)
class Summary:
    """A network in one row.

    Args:
        name: in the registry.
        parameters: weights, trained or fixed, for 3 bands and 21 classes.
        gmac_512: 1e9 multiply-accumulates for a tile of 512 px; None if it does not take one.
        stride: total stride in px.
        receptive_field: of one output pixel, in px.
        halo: in px; None if there is none.
        paper: where it is published.
    """

    name: str
    parameters: int
    gmac_512: float | None
    stride: int
    receptive_field: int
    halo: int | None
    paper: str


def summarise(
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    bands: int = BANDS,
    classes: int = CLASSES,
) -> Summary:
    """Return the row of a network.

    Raises:
        ModelError: if there is no such network, or it has no such option.
    """
    net = build_on_meta(name, bands, classes, options or {})
    takes_tile = net.size in (None, TILE)
    gmac = sum(layer.macs for layer in layers(net, bands, TILE, TILE)) / 1e9 if takes_tile else None
    return Summary(
        name=name,
        parameters=sum(p.numel() for p in net.parameters()),
        gmac_512=None if gmac is None else round(gmac, 2),
        stride=net.stride,
        receptive_field=net.receptive_field,
        halo=net.halo,
        paper=find_network(name).paper,
    )
