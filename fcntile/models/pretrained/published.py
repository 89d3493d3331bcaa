"""Published weights that structure alone does not tell apart.

Most files derive from the VGG16 that its authors published for Caffe; torchvision trained its own.
Both kinds exist under torchvision's names (`vgg16-00b39a1b.pth`, copies of it, and wkentaro's
`vgg16_from_caffe.pth` are the authors'), with other means and another order of channels. The first
numbers of conv1_1 tell them apart, in any copy that was not trained further, and show a copy whose
kernels were turned.
"""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from fcntile.errors import ModelError

# bias of conv1_1, and its kernels at the upper left for blue, as Keras's copy has them
AUTHORS_BIAS = (0.73429835, 0.093403675, 0.06775674, 0.8862966, 0.25994542, 0.66426694)
AUTHORS_BLUE = (0.42947057, 0.373467, -0.061360113, 0.27476987, 0.038680777, -0.36722335)
# of wkentaro/pytorch-fcn's fcn8s-atonce_from_caffe.pth, as its FCN8sAtOnce.download checks it
AT_ONCE_MD5 = "bfed4437e941fef58932891217fe6464"
TOLERANCE = 1e-4


def authors_order(weight: Tensor, bias: Tensor) -> str | None:
    """Return the order of channels, "RGB" or "BGR", if a conv1_1 is that of VGG16's authors.

    Args:
        weight: (64, 3, 3, 3) of a correlation.
        bias: (64,)

    Returns:
        None if it is another one.

    Raises:
        ModelError: if it is theirs, but with kernels that were turned or mixed up.
    """
    if not _are(bias, AUTHORS_BIAS):
        return None
    if _are(weight[:, 0, 0, 0], AUTHORS_BLUE):
        return "BGR"
    if _are(weight[:, 2, 0, 0], AUTHORS_BLUE):
        return "RGB"
    raise ModelError(
        "the biases are those of the published VGG16, but the kernels were turned or mixed up on "
        "the way: use another copy of the file"
    )


def is_at_once(path: Path) -> bool:
    """Tell whether a file is wkentaro's copy of FCN-8s at once."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == AT_ONCE_MD5


def _are(values: Tensor, known: tuple[float, ...]) -> bool:
    return torch.allclose(values[: len(known)], torch.tensor(known), rtol=0, atol=TOLERANCE)
