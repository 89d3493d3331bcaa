"""A whole model out of a file of weights: nothing in it is left at chance."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from fcntile.errors import ModelError
from fcntile.models.card import Card, ModelClass
from fcntile.models.pretrained.apply import Layers, layers_of, load_into, other_layers
from fcntile.models.pretrained.classes import name_classes
from fcntile.models.pretrained.description import COLOURS, Pretrained
from fcntile.models.pretrained.upsampling import learned_upsampling
from fcntile.models.registry import Net, create_model

FCNS = ("fcn32s", "fcn16s", "fcn8s")  # by their skips
HEAD = 4096  # channels of fc6 and fc7 unless said otherwise

# All FCNs that people have come from Caffe, which pads the image by 100 px and crops the scores.
CAFFE_PADDING = 100


def complete_model(
    given: Pretrained, name: str, classes: tuple[ModelClass, ...] = (), **more: Any
) -> tuple[Net, Card]:
    """Return the net that a file holds, and its card.

    That of a complete FCN is the FCN; that of a VGG16 with its top the classifier made fully
    convolutional, an FCN-32s of 1000 classes, as the FCN paper begins; that of ResNet-50 likewise.

    Args:
        given: what the file holds.
        name: of the model.
        classes: of its scores; by default those that the file names, or PASCAL VOC's or ImageNet's.
        **more: what else the card says.

    Raises:
        ModelError: if the file lacks something, or has layers that the net does not have.
    """
    arch, options, given = _whole(given)
    scores = given.weights["score.weight" if "score.weight" in given.weights else "score_fr.weight"]
    classes = classes or name_classes(len(scores), given.classes)
    if len(classes) != len(scores):
        raise ModelError(f"the file scores {len(scores)} classes, the table has {len(classes)}")
    net = create_model(arch, len(COLOURS), len(classes), **options)
    if fault := next(_faults(arch, layers_of(net, given), given), None):
        raise ModelError(f"{given.source} {fault}: use the file with fcntile train --init-weights")
    load_into(net, COLOURS, given)
    card = Card(
        name=name,
        arch=arch,
        arch_options=options,
        bands=given.bands,
        dtype="uint8",
        classes=classes,
        **more,
    )
    return net, card


def _faults(arch: str, layers: Layers, given: Pretrained) -> Iterator[str]:
    """Yield what keeps a file from being just the tensors of a net, in their shapes."""
    for layer in other_layers(layers, given):
        yield f"has layers that {arch} does not have, such as {layer}"
    for layer, tensors in layers.items():
        for kind, tensor in tensors.items():
            name = f"{layer}.{kind}"
            found = given.weights.get(name)
            if found is None:
                yield f"is not complete: it lacks {name} of {arch}"
            elif found.shape != tensor.shape:
                yield f"has {tuple(found.shape)} in {name}, {arch} has {tuple(tensor.shape)}"


def _whole(given: Pretrained) -> tuple[str, dict[str, Any], Pretrained]:
    """Return the network that a file holds, its options, and the weights as it names them.

    Raises:
        ModelError: if there are no scores, or the upsampling is not that of an FCN.
    """
    weights = dict(given.weights)
    if "score.weight" in weights:
        return given.arch, given.arch_options, given
    options: dict[str, Any] = {}
    if "conv6.weight" in weights and len(weights["conv6.weight"]) != HEAD:
        options["head"] = len(weights["conv6.weight"])
    if "score_fr.weight" in weights:
        arch = FCNS[sum(f"score_pool{i}.weight" in weights for i in (4, 3))]
        options["padding"] = CAFFE_PADDING
        if learned := learned_upsampling(arch, given):
            options["upsampling"] = "learned"
        return arch, options, replace(given, weights={**weights, **learned})
    if "conv8.weight" in weights:
        renamed = {name.replace("conv8.", "score_fr."): w for name, w in weights.items()}
        return "fcn32s", options, replace(given, weights=renamed)
    raise ModelError(
        f"the file holds features of {given.source} but no scores: use it with fcntile train "
        "--init-weights"
    )
