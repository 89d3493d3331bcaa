"""Where a net starts from: chance, another model, or weights of another framework."""

import logging
from dataclasses import replace

import torch

from fcntile.errors import OptionError
from fcntile.inference.grid import overlap_px
from fcntile.models.card import Band, Card
from fcntile.models.model_file import Model, load_model
from fcntile.models.pretrained import Pretrained, load_into, read_pretrained
from fcntile.models.pretrained.apply import filters_for
from fcntile.models.registry import Net, create_model
from fcntile.training.recipes import Settings

log = logging.getLogger(__name__)

DEFAULT_ARCH = "fcn8s-small"
Start = Model | Pretrained | None  # None is chance


def choose_start(init: str | None, init_weights: str | None) -> Start:
    """Return what a net starts from.

    Args:
        init: model file, or name of a bundled model.
        init_weights: file of another framework's weights.

    Raises:
        OptionError: if there are both.
        ModelError: if a file is not what it should be.
    """
    if init is not None and init_weights is not None:
        raise OptionError("a net starts from one thing: give either --init or --init-weights")
    if init_weights is not None:
        return read_pretrained(init_weights)
    return load_model(init) if init is not None else None


def with_arch(settings: Settings, start: Start) -> Settings:
    """Return settings that name a network: the one asked for, else that of the start."""
    if settings.arch is not None:
        return settings
    if start is None:
        return replace(settings, arch=DEFAULT_ARCH)
    if isinstance(start, Pretrained):
        log.info("the network is %s, which the weights are for: no --arch was given", start.arch)
    known = start if isinstance(start, Pretrained) else start.card
    arch_options = {**known.arch_options, **settings.arch_options}
    return replace(settings, arch=known.arch, arch_options=arch_options)


def make_net(card: Card, settings: Settings, start: Start) -> Net:
    """Return the net that a card describes, on the CPU, with the weights to start from.

    Args:
        card: of the model that comes out.
        settings: whose seed and window count.
        start: the model or the weights to start from; None for chance.

    Raises:
        ModelError: if there is no such net, or weights are for another one.
        OptionError: if the window is not a multiple of its stride, or not its only size.
    """
    torch.manual_seed(settings.seed)
    net = create_model(card.arch, len(card.bands), len(card.classes), **card.arch_options)
    if settings.window % net.stride:
        raise OptionError(
            f"window {settings.window} is not a multiple of the net's stride, {net.stride}"
        )
    if net.size and settings.window != net.size:
        raise OptionError(
            f"{card.arch} takes windows of {net.size} px only, not {settings.window}: use "
            f"--window {net.size}, or --arch-option size={settings.window} for another net"
        )
    if net.limits:
        log.warning(net.limits)
    bands, classes = (tuple(x.name for x in xs) for xs in (card.bands, card.classes))
    if isinstance(start, Pretrained):
        load_into(net, bands, start)
    elif start is not None:
        start_from(net, bands, classes, start)
    return net


def fixed_tile(net: Net, window: int) -> int | None:
    """Return the only side of a tile that suits a net trained on windows; None if any does."""
    return net.size or (window if net.is_tile_bound else None)


def suited(card: Card, net: Net, window: int) -> Card:
    """Return a card whose tile suits a net trained on windows."""
    tile = fixed_tile(net, window)
    if tile is None:
        return card
    return replace(card, tile=tile, overlap=overlap_px("25%", tile, net.stride))


def start_from(net: Net, bands: tuple[str, ...], classes: tuple[str, ...], start: Model) -> None:
    """Give a net the weights of a model as far as they fit, and say in the log what did not.

    A first layer for other bands takes each band's filter by name; a new band takes the mean of all
    filters, as the FCN authors did for depth (`nyud-fcn32s-color-d/solve.py`). Layers that end in
    more or fewer classes keep their random weights.

    Args:
        net: on the CPU.
        bands: names of its input channels.
        classes: names of its output channels.
        start: the model to start from.
    """
    given = start.net.state_dict()
    old_bands = [band.name for band in start.card.bands]
    kernels = [name for name, weight in given.items() if weight.ndim == 4]
    first = next((k for k in kernels if given[k].shape[1] == len(old_bands)), None)
    missing = []
    for name, weight in net.state_dict().items():
        old = given.get(name)
        if old is not None and name == first and list(bands) != old_bands:
            old = filters_for(old, bands, old_bands)
        if old is None or old.shape != weight.shape:
            missing.append(name)
            continue
        weight.copy_(old)
    if len(missing) == len(net.state_dict()):
        log.warning("no weight of %s fits the net: it starts from chance", start.card.name)
    elif missing:
        log.info("random as before, not from %s: %s", start.card.name, ", ".join(missing))
    old_classes = [c.name for c in start.card.classes]
    if list(classes) != old_classes:
        log.info("classes are %s, those of %s were %s", classes, start.card.name, old_classes)
    if list(bands) != old_bands:
        log.info("bands are %s, those of %s were %s", bands, start.card.name, old_bands)


def normalisation(
    names: tuple[str, ...],
    dtype: str,
    mean: list[float],
    std: list[float],
    start: Card | Pretrained | None,
) -> tuple[Band, ...]:
    """Return the bands of a card: those of the start if they are the same, else as measured.

    Weights of another framework may be used to inputs that spread further than 1: then measured
    deviations are divided by that spread, so that the net sees numbers as large as before.

    Args:
        names: of the bands.
        dtype: of the rasters.
        mean: measured, in the rasters' units.
        std: likewise.
        start: card of the model, or the weights, that the net starts from.
    """
    spread = 1.0
    if isinstance(start, Pretrained):
        known = {band.name: band for band in start.bands}
        if dtype == "uint8" and sorted(name.lower() for name in names) == sorted(known):
            log.info("mean and deviation of the bands are those of %s", start.source)
            return tuple(replace(known[name.lower()], name=name) for name in names)
        spread = start.spread
    elif start is not None and dtype == start.dtype and names == tuple(b.name for b in start.bands):
        log.info("mean and deviation of the bands are those of %s", start.name)
        return start.bands
    return tuple(Band(n, m, s / spread) for n, m, s in zip(names, mean, std, strict=True))
