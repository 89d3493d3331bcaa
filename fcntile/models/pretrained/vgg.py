"""VGG16 and the FCNs on it, from any framework into one kind."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fcntile.errors import ModelError
from fcntile.models.pretrained.arrays import Arrays
from fcntile.models.pretrained.conventions import SSD, find_convention
from fcntile.models.pretrained.description import Pretrained
from fcntile.models.pretrained.layouts import LAYOUTS, keras_layout, to_kernel
from fcntile.models.pretrained.names import CHANNELS, DENSE, SCHEMES, find_scheme, layer_of
from fcntile.models.pretrained.published import is_at_once
from fcntile.models.pretrained.shapes import check_shape

POOL5 = 7  # px of the maps that fc6 sees
SCALES = {"scale_pool4": "score_pool4", "scale_pool3": "score_pool3"}  # of FCN-8s at once
VGG19 = re.compile(r"(?:conv[345]_|block[345]_conv)4\.weight")  # what VGG16 does not have
AT_ONCE = {"scale_pool4.weight": 0.01, "scale_pool3.weight": 0.0001}  # voc-fcn8s-atonce/net.py


def read_vgg(path: Path, arrays: Arrays) -> Pretrained | None:
    """Return the weights of VGG16 or an FCN among arrays; None if there is no such net.

    Raises:
        ModelError: if there is one, but not with the 13 convolutions of VGG16 (14,714,688
            parameters) on three colours, or without the mean that it was trained with.
    """
    tensors = {name.replace("-", "_"): tensor for name, tensor in arrays.tensors.items()}
    scheme = find_scheme(tensors)
    if scheme is None:
        return None
    if arrays.framework == "torch" and "score_pool3.weight" in tensors and is_at_once(path):
        tensors |= {name: torch.tensor([scale]) for name, scale in AT_ONCE.items()}
    tensors = _lay_out(path, tensors, arrays.framework, SCHEMES[scheme])
    weights, rest = _sort(tensors, SCHEMES[scheme])
    _scale(path, weights, rest)
    _check_convolutions(path, weights, rest)
    convention = find_convention(path, scheme, arrays, weights)
    if convention is SSD:
        weights = {n: w for n, w in weights.items() if n.partition(".")[0] not in DENSE}
    if convention.order == "BGR":
        weights["conv1_1.weight"] = weights["conv1_1.weight"].flip(1)
    upsampling = {name.removesuffix(".weight"): t for name, t in rest.items() if _upsamples(t)}
    others = [name for name, t in rest.items() if not _upsamples(t) and _counts(name, t)]
    return Pretrained(
        f"{'FCN' if 'score_fr.weight' in weights else 'VGG16'} of {convention.source}",
        {name: weight.contiguous() for name, weight in weights.items()},
        convention.bands,
        convention.spread,
        upsampling,
        tuple(dict.fromkeys(map(layer_of, others))),
        arrays.classes,
    )


def _lay_out(
    path: Path, tensors: Mapping[str, Tensor], framework: str, names: Mapping[str, str]
) -> dict[str, Tensor]:
    """Return tensors whose kernels are laid out as torch does, by their names in the file.

    Raises:
        ModelError: if one is no kernel.
    """
    layout = LAYOUTS.get(framework) or keras_layout(tensors[f"{next(iter(names))}.weight"])
    found = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".")
        try:
            if kind == "weight" and (layer in names or tensor.ndim == 4):
                tensor = to_kernel(tensor, layout, POOL5 if names.get(layer) == DENSE[0] else 1)
        except ValueError as error:
            raise ModelError(f"layer {layer} of {path} is none of VGG16: {error}") from error
        found[name] = tensor
    return found


def _sort(
    tensors: Mapping[str, Tensor], names: Mapping[str, str]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights of known layers by neutral name, and those of all other layers."""
    known, rest = {}, {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".")
        if layer in names:
            known[f"{names[layer]}.{kind}"] = tensor
        else:
            rest[name] = tensor
    return known, rest


def _scale(path: Path, weights: dict[str, Tensor], rest: dict[str, Tensor]) -> None:
    """Move the fixed scales of FCN-8s at once into the scores: score(s x) = (s score)(x).

    Raises:
        ModelError: if a scale is neither one number nor one of each channel.
    """
    for name, layer in SCALES.items():
        scale, score = rest.pop(f"{name}.weight", None), weights.get(f"{layer}.weight")
        if scale is None or score is None:
            continue
        if scale.numel() not in (1, score.shape[1]):
            raise ModelError(
                f"{path} has {scale.numel()} numbers in {name}, wanted are 1 or {score.shape[1]}, "
                f"one for each channel that {layer} takes"
            )
        weights[f"{layer}.weight"] = score * scale.reshape(1, -1, 1, 1)


def _check_convolutions(
    path: Path, weights: Mapping[str, Tensor], rest: Mapping[str, Tensor]
) -> None:
    """Raise ModelError unless all 13 convolutions are there, in the sizes of VGG16, and no more."""
    for name, tensor in rest.items():
        if VGG19.fullmatch(name) and tensor.shape[2:] == (3, 3):
            raise ModelError(
                f"{path} is VGG19, with a layer {layer_of(name)}: give the weights of VGG16"
            )
    inputs = 3
    for name, outputs in CHANNELS.items():
        check_shape(path, "VGG16", weights, f"{name}.weight", (outputs, inputs, 3, 3))
        check_shape(path, "VGG16", weights, f"{name}.bias", (outputs,))
        inputs = outputs


def _upsamples(tensor: Tensor) -> bool:
    """Tell an FCN's transposed convolution, from classes to classes, by its shape."""
    if tensor.ndim != 4:
        return False
    inputs, outputs, *sides = tensor.shape
    return inputs > 0 and outputs in (1, inputs) and sides in ([4, 4], [16, 16], [32, 32], [64, 64])


def _counts(name: str, tensor: Tensor) -> bool:
    """Tell whether a tensor changes what a net computes: a bias of zeros does not."""
    return bool(tensor.any()) or not name.endswith(".bias")
