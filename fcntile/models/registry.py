"""Networks by name.

A builder takes the bands and classes, and options by keyword.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from fcntile.errors import ModelError
from fcntile.models.options import check_options
from fcntile.models.reach import Reach, analyse, receptive_field


class Net(nn.Module):
    """What every network has beside its layers.

    Attributes:
        size: the only height and width that it takes; None if it takes every multiple of the
            stride.
        is_tile_bound: whether what it gives for a pixel far from the rim still depends on how large
            the tile is; then it should predict in tiles as large as its training windows.
        limits: what someone who chooses it should know; empty if there is nothing.
    """

    size: int | None = None
    is_tile_bound: bool = False
    limits: str = ""

    @cached_property
    def reach(self) -> Reach:
        """How far it sees, from its layers."""
        return analyse(self)

    @property
    def stride(self) -> int:
        """Total stride in px: height and width of the input are multiples of it."""
        return self.reach.stride

    @property
    def receptive_field(self) -> int:
        """Largest height and width of the input in px that one output pixel depends on."""
        return self.size or receptive_field(self)

    @property
    def halo(self) -> int | None:
        """Px beyond a block aligned to the stride that reach into it, rounded up to the stride.

        None if no halo makes two tiles agree, because what the net gives for a pixel depends on
        where in the tile it lies.
        """
        return None if self.size else -(-self.reach.halo // self.stride) * self.stride


Builder = Callable[..., Net]


@dataclass(frozen=True)
class Network:
    """What is known of a network before it is built.

    Args:
        build: from bands, classes and options.
        net: class of what that returns; its keyword arguments are the options.
        paper: where the network is published.
    """

    build: Builder
    net: type[Net]
    paper: str


NETWORKS: dict[str, Network] = {}


def register_model(
    name: str, net: type[Net] | None = None, paper: str = ""
) -> Callable[[Builder], Builder]:
    """Return a decorator that makes a builder known as `name`.

    Args:
        name: lower case; underscores become hyphens.
        net: class of what the builder returns, whose keyword arguments are the options; by default
            the builder is that class.
        paper: where the network is published.
    """

    def register(builder: Builder) -> Builder:
        made = net or builder
        NETWORKS[_key(name)] = Network(builder, made, paper)  # type: ignore[arg-type]
        return builder

    return register


def list_models() -> list[str]:
    """Return the names of all networks.

    >>> "fcn8s" in list_models()
    True
    """
    return sorted(NETWORKS)


def find_network(name: str) -> Network:
    """Return what is known of a network.

    Raises:
        ModelError: if there is none of that name.
    """
    if _key(name) not in NETWORKS:
        raise ModelError(f"no network is called {name!r}; there are {', '.join(list_models())}")
    return NETWORKS[_key(name)]


def _key(name: str) -> str:
    return name.replace("_", "-")


def create_model(name: str, bands: int, classes: int, /, **options: object) -> Net:
    """Return a new network.

    Args:
        name: one of `list_models()`; underscores are as good as hyphens.
        bands: channels of its input.
        classes: channels of its output.
        **options: what the builder of that network takes.

    Raises:
        ModelError: if the name or an option is unknown, or an option has a value it cannot have.
    """
    network = find_network(name)
    check_options(name, network.net, options)
    try:
        return network.build(bands, classes, **options)
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{name} cannot be built with {options}: {error}") from error


def build_on_meta(name: str, bands: int, classes: int, options: Mapping[str, Any]) -> Net:
    """Return a network without memory for its weights.

    Raises:
        ModelError: if there is no such network, or it has no such option.
    """
    with torch.device("meta"):
        return create_model(name, bands, classes, **options)
