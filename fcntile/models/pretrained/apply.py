"""Give a net the weights of a file, by the names of layers."""

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fcntile.errors import ModelError
from fcntile.models.pretrained.description import COLOURS, Pretrained
from fcntile.models.pretrained.names import layer_of
from fcntile.models.registry import Net

log = logging.getLogger(__name__)

Layers = dict[str, dict[str, Tensor]]
HEADS = ("conv6", "conv7", "conv8")  # of VGG16: a net may have others, or none


def filters_for(old: Tensor, bands: Sequence[str], old_bands: Sequence[str]) -> Tensor:
    """Return a first layer's kernels, (channels, bands, height, width), for other bands.

    Each band takes its filter by name, in capitals or not; a new band takes the mean of all
    filters, as the FCN authors did for depth (`nyud-fcn32s-color-d/solve.py`).
    """
    mean = old.mean(1)
    bands, old_bands = ([name.lower() for name in names] for names in (bands, old_bands))
    return torch.stack(
        [old[:, old_bands.index(name)] if name in old_bands else mean for name in bands], 1
    )


def load_into(net: Net, bands: Sequence[str], given: Pretrained) -> list[str]:
    """Give a new net the weights of a file, and say in the log what was taken and what was not.

    Layers are matched by name: in nets on VGG16 it is the last but one part of a parameter's name,
    in ResNets all before the last. Where a net has a batch norm and no bias, the file's bias goes
    into the norm, whose statistics are 0 and 1 in a new net, so that the function stays.

    Args:
        net: on the CPU, as new.
        bands: names of its input channels.
        given: what the file holds.

    Returns:
        Names of layers that were left as they start: scores and other heads that the file does not
        have, or has in another size.

    Raises:
        ModelError: if the net is not on the file's network, or is of another width.
    """
    layers = layers_of(net, given)
    first = "conv1_1" if "conv1_1.weight" in given.weights else "conv1"
    if first not in layers:
        raise ModelError(
            f"the net has no layer {first} for the weights of {given.source}: choose another with "
            f"--arch, such as {given.arch}"
        )
    weights = dict(given.weights)
    if not {name.lower() for name in bands} & set(COLOURS):
        log.warning(
            "none of the bands %s is called red, green or blue: each starts with the mean of the "
            "filters of %s (gdal_edit -colorinterp_1 red names them)",
            ", ".join(bands),
            given.source,
        )
    weights[f"{first}.weight"] = filters_for(weights[f"{first}.weight"], bands, COLOURS)
    for score, scale in getattr(net, "score_scales", {}).items():
        if f"{score}.weight" in weights:  # the file's are for maps that are not scaled
            weights[f"{score}.weight"] = weights[f"{score}.weight"] / scale
    taken, chance = [], []
    for layer, tensors in layers.items():
        values = {kind: weights.get(f"{layer}.{kind}") for kind in tensors}
        if all(v is not None and v.shape == tensors[kind].shape for kind, v in values.items()):
            for kind, tensor in tensors.items():
                tensor.copy_(weights[f"{layer}.{kind}"])
            taken.append(layer)
        elif any(f"{layer}.{kind}" in weights for kind in tensors) and not _is_head(layer):
            raise _misfit(layer, tensors, values, given)
        else:
            chance.append(layer)
    log.info(
        "from %s: %d layers, %s to %s, for the bands %s (those but red, green, blue with the mean "
        "of their filters); left as they start: %s",
        *(given.source, len(taken), taken[0], taken[-1]),
        *(", ".join(bands), ", ".join(chance) or "nothing"),
    )
    if others := other_layers(layers, given):
        log.info("the net has no use for these layers of %s: %s", given.source, ", ".join(others))
    return chance


def other_layers(layers: Layers, given: Pretrained) -> list[str]:
    """Return the layers of a file that a net does not have, or its tensor that a layer has not.

    Args:
        layers: of the net.
        given: what the file holds.
    """
    known = {f"{layer}.{kind}" for layer, tensors in layers.items() for kind in tensors}
    others = [
        name if layer_of(name) in layers else layer_of(name)
        for name in given.weights
        if name not in known
    ]
    return list(dict.fromkeys([*given.others, *others]))


def layers_of(net: Net, given: Pretrained) -> Layers:
    """Return the net's tensors by the neutral name of their layer in a file, then by kind."""
    is_vgg, layers = "conv1_1.weight" in given.weights, Layers()
    fixed = {name for name, p in net.named_parameters() if not p.requires_grad}
    for name, tensor in net.state_dict().items():
        layer, _, kind = name.rpartition(".")
        if name in fixed or kind == "num_batches_tracked":
            continue
        if is_vgg:
            layer = layer.rpartition(".")[2]
            if layer.startswith("bn"):
                if kind != "bias":
                    continue  # as new: it changes nothing
                layer = f"conv{layer[2:]}"
        layers.setdefault(layer, {})[kind] = tensor
    return layers


def _is_head(layer: str) -> bool:
    return layer in HEADS or layer.startswith("score")


def _misfit(
    layer: str,
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Tensor | None],
    given: Pretrained,
) -> ModelError:
    """Return what to say of a layer that has another shape than in the file."""
    if missing := [kind for kind, value in values.items() if value is None]:
        return ModelError(
            f"{given.source} has no {layer}.{missing[0]}, the net has one: use the options of the "
            f"file's network, {given.arch} {given.arch_options or ''}".rstrip()
        )
    kind, has, wanted = next(
        (kind, tuple(value.shape), tuple(tensors[kind].shape))
        for kind, value in values.items()
        if value is not None and value.shape != tensors[kind].shape
    )
    if layer == "conv1_1":
        return ModelError(
            f"{given.source} has {has[0]} filters in {layer}, the net has {wanted[0]}: use "
            f"--arch-option width={has[0]}"
        )
    return ModelError(f"{given.source} has {has} in {layer}.{kind}, the net has {wanted}")
