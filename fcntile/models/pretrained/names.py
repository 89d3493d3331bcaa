"""What frameworks call the layers of VGG16 and of the FCNs on it."""

from collections.abc import Mapping

from torch import Tensor

from fcntile.models.vgg import CONVOLUTIONS

# conv1_1 to conv5_3, and the channels of each
CHANNELS = {
    f"conv{block}_{i}": width
    for block, (count, width) in enumerate(
        zip(CONVOLUTIONS, (64, 128, 256, 512, 512), strict=True), 1
    )
    for i in range(1, count + 1)
}
DENSE = ("conv6", "conv7", "conv8")  # fc6 to fc8, as convolutions
SCORES = ("score_fr", "score_pool4", "score_pool3")
# places among the layers of torch.nn.Sequential, and in Keras, with a ZeroPadding before each one
TORCH_PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
CLASSIC_PLACES = (1, 3, 6, 8, 11, 13, 15, 18, 20, 22, 25, 27, 29, 32, 34, 36)


def _to_neutral(*names: str) -> dict[str, str]:
    return dict(zip(names, (*CHANNELS, *DENSE), strict=True))


# by framework, or "named" for those that keep Caffe's: name in the file -> neutral name
SCHEMES = {
    "named": _to_neutral(*CHANNELS, "fc6", "fc7", "fc8") | {score: score for score in SCORES},
    "keras": _to_neutral(
        *(f"block{name[4]}_conv{name[6]}" for name in CHANNELS), "fc1", "fc2", "predictions"
    ),
    "classic": _to_neutral(*(f"layer_{place}" for place in CLASSIC_PLACES)),
    "torchvision": _to_neutral(
        *(f"features.{place}" for place in TORCH_PLACES),
        *(f"classifier.{place}" for place in (0, 3, 6)),
    )
    | {"classifier.1": "conv6", "classifier.4": "conv7"},  # of the first releases
}


def layer_of(name: str) -> str:
    """Return the layer of a tensor.

    >>> layer_of("layer4.2.conv3.weight"), layer_of("weight")
    ('layer4.2.conv3', 'weight')
    """
    return name.rpartition(".")[0] or name


def find_scheme(tensors: Mapping[str, Tensor]) -> str | None:
    """Return which of `SCHEMES` names these arrays, by the name of their first convolution."""
    return next(
        (s for s, names in SCHEMES.items() if f"{next(iter(names))}.weight" in tensors), None
    )
