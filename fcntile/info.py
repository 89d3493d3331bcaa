"""Network or model file in; its layers, weights and reach out, and what a model was trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fcntile.errors import ModelError, OptionError
from fcntile.models.card import Card
from fcntile.models.model_file import bundled_models, is_file, read_card
from fcntile.models.registry import build_on_meta, list_models
from fcntile.models.summary import BANDS, CLASSES, TILE, Layer, layers


@dataclass(frozen=True)
class Summary:
    """What a network is made of.

    Args:
        name: of the network or model.
        size: height and width of the tile in px.
        bands: of the tile.
        classes: to tell apart.
        parameters: weights, trained or fixed.
        gmac: 1e9 multiply-accumulates of a forward pass of the tile.
        largest_map_mb: size of the largest output of a layer in float32, in 1e6 bytes.
        stride: total stride in px.
        receptive_field: of one output pixel, in px.
        halo: in px; None if there is none.
        limits: what someone who chooses it should know; empty if there is nothing.
        card: of the model; None for a network.
        layers: in the order of computation.
    """

    name: str
    size: tuple[int, int]
    bands: int
    classes: int
    parameters: int
    gmac: float
    largest_map_mb: float
    stride: int
    receptive_field: int
    halo: int | None
    limits: str
    card: Card | None
    layers: list[Layer]


def info(
    name: str,
    *,
    size: tuple[int, int] | None = None,
    bands: int | None = None,
    classes: int | None = None,
    arch_options: Mapping[str, Any] | None = None,
) -> Summary:
    """Return what a network or the network of a model is made of, for a tile of any size.

    Nothing is computed and no weight is allocated.

    Args:
        name: of a network or bundled model, or path of a model file.
        size: height and width of the tile in px; by default 512, or what the model suits.
        bands: of the tile; by default 3.
        classes: to tell apart; by default 21.
        arch_options: of the network.

    Raises:
        ModelError: if there is no such network or model.
        OptionError: if the network does not take such a tile, or what a model file fixes is given.
    """
    card = None
    if name.replace("_", "-") in list_models():
        net = build_on_meta(name, bands or BANDS, classes or CLASSES, arch_options or {})
        bands, classes, tile = bands or BANDS, classes or CLASSES, net.size or TILE
    elif name in bundled_models() or is_file(name):
        if bands or classes or arch_options:
            raise OptionError(f"bands, classes and options of the model {name} are in its file")
        card = read_card(name)
        bands, classes, tile = len(card.bands), len(card.classes), card.tile
        net = build_on_meta(card.arch, bands, classes, card.arch_options)
    else:
        raise ModelError(
            f"{name} is neither a model file nor a bundled model ({', '.join(bundled_models())}) "
            f"nor a network ({', '.join(list_models())})"
        )
    height, width = size or (tile, tile)
    found = layers(net, bands, height, width)
    return Summary(
        name=name,
        size=(height, width),
        bands=bands,
        classes=classes,
        parameters=sum(p.numel() for p in net.parameters()),
        gmac=sum(layer.macs for layer in found) / 1e9,
        largest_map_mb=max(layer.bytes for layer in found) / 1e6,
        stride=net.stride,
        receptive_field=net.receptive_field,
        halo=net.halo,
        limits=net.limits,
        card=card,
        layers=found,
    )
