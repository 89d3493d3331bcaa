"""The net of guojiyao/deep_fcn, which drew buildings on satellite tiles.

FCN-8s whose 13 VGG16 convolutions are all dilated by 2 while every pooling keeps its stride, with
learned upsampling. The project published no scores. What was wrong around the net is mended here:
it divided pixels by 255 without taking away a mean, for weights that want 0-255 less the mean, and
twice so when it predicted; the card of a model decides that here. It added 1e-4 to its logits; the
cross-entropy here needs no such guard. It thresholded one class at 0.5; the mask here has the best
class of any number.

What is left is its own: trained VGG16 filters lie at twice the spacing they were trained for
(`dilation=1` undoes that, and leaves FCN-8s with learned upsampling).
"""

from typing import Any

from torch import nn

from fcntile.models.fcn import FCN
from fcntile.models.registry import register_model

DEVIATIONS = ((2 / 4096) ** 0.5, 1e-3, 1e-4)  # of the scores, coarse to fine


@register_model("deep-fcn", FCN, "github.com/guojiyao/deep_fcn")
def deep_fcn(bands: int, classes: int, **options: Any) -> FCN:
    """Return the net, its scores starting from the normal distributions that it gave them."""
    net = FCN(bands, classes, 2, **{"dilation": 2, "upsampling": "learned", **options})
    for name, deviation in zip(("score_fr", *net.score_scales), DEVIATIONS, strict=True):
        score = net.get_submodule(name)
        assert isinstance(score, nn.Conv2d)
        assert score.bias is not None
        nn.init.normal_(score.weight, std=deviation)
        nn.init.zeros_(score.bias)
    return net
