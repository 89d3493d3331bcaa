"""Recognise what a file of weights holds, by structure."""

import logging
from pathlib import Path

from fcntile.errors import ModelError
from fcntile.models.pretrained.container import read_arrays
from fcntile.models.pretrained.description import Pretrained
from fcntile.models.pretrained.resnet import read_resnet
from fcntile.models.pretrained.vgg import read_vgg

log = logging.getLogger(__name__)


def read_pretrained(path: str | Path) -> Pretrained:
    """Return the weights in a file of VGG16, of an FCN on it, or of ResNet-50.

    Raises:
        ModelError: if it is none of these, or damaged, or needs a package that is not installed.
    """
    path = Path(path)
    arrays = read_arrays(path)
    found = read_vgg(path, arrays) or read_resnet(path, arrays)
    if found is None:
        names = ", ".join(sorted(arrays.tensors)[:3])
        raise ModelError(
            f"{path} holds neither VGG16, an FCN nor ResNet-50 in names that fcntile knows: its "
            f"first are {names or 'none'}"
        )
    for name, tensor in {**found.weights, **found.upsampling}.items():
        if not tensor.isfinite().all():
            raise ModelError(f"{path} is damaged: {name} has values that are not finite")
        if name.endswith("running_var") and (tensor < 0).any():
            raise ModelError(f"{path} is damaged: {name} has negative values, a variance has none")
    log.info("%s holds %s, %d arrays", path, found.source, len(found.weights))
    return found
