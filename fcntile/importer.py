"""Weights of another framework in, model file out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fcntile
from fcntile.files import check_apart, check_output
from fcntile.models.card import ModelClass
from fcntile.models.model_file import save_model
from fcntile.models.pretrained import read_pretrained
from fcntile.models.pretrained.complete import complete_model
from fcntile.raster.classes import read_classes


@dataclass(frozen=True)
class Summary:
    """What was imported.

    Args:
        source: what the file was recognised as.
        arch: name of the network.
        arch_options: its options.
        parameters: weights of it.
        bands: name, mean and std of each.
        classes: value in masks and name of each class.
        output: path of the model file.
    """

    source: str
    arch: str
    arch_options: dict[str, Any]
    parameters: int
    bands: list[dict[str, Any]]
    classes: dict[int, str]
    output: str


def import_weights(
    weights: str | Path,
    output: str | Path,
    *,
    name: str | None = None,
    classes: str | None = None,
    licence: str = "",
    attribution: str = "",
    overwrite: bool = False,
) -> Summary:
    """Write a model file with the weights of another framework.

    Args:
        weights: file of a complete FCN, of VGG16 with its top, or of ResNet-50.
        output: path of the model file.
        name: of the model; by default that of the output.
        classes: file of the class table; by default PASCAL VOC or ImageNet.
        licence: of the model, for its card.
        attribution: whom to name when using the model, for its card.
        overwrite: replace an existing output.

    Raises:
        ModelError: if the file is not recognised, or not complete.
        InputError: if the class table cannot be read, or has no class.
        OutputError: if the output exists, or is an input, or cannot be written.
    """
    weights, output = Path(weights), Path(output)
    check_output(output, overwrite=overwrite)
    check_apart(output, {"the file of weights": [weights]})
    if classes is not None:
        check_apart(output, {"the class table": [classes]})
    rows = read_classes(classes) if classes is not None else []
    table = tuple(ModelClass(c.name, c.color, c.id) for c in rows)
    given = read_pretrained(weights)
    net, card = complete_model(
        given,
        name or output.stem,
        table,
        training={"fcntile": fcntile.__version__, "weights": weights.name, "source": given.source},
        licence=licence,
        attribution=attribution,
    )
    save_model(output, net, card)
    return Summary(
        source=given.source,
        arch=card.arch,
        arch_options=card.arch_options,
        parameters=sum(p.numel() for p in net.parameters()),
        bands=[vars(band) for band in card.bands],
        classes=dict(zip(card.values, (c.name for c in card.classes), strict=True)),
        output=str(output),
    )
