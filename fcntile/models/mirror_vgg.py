"""The mirrored VGG16 of Keras issue #3540, in which this project began.

Its author wanted VGG16 and its mirror image for satellite images in tiles of 512 px, with repeat
upsampling instead of switches. `mirror-vgg` is that net with its faults mended; `mirror-vgg-thread`
is the one that was posted.
"""

from typing import Any

from torch import Tensor, nn

from fcntile.models.deconvnet import DECODER, DeconvNet
from fcntile.models.registry import Net, register_model
from fcntile.models.upsampling import Repeat
from fcntile.models.vgg import WIDTHS, conv_relu, vgg_block

ISSUE = "github.com/keras-team/keras/issues/3540"


@register_model("mirror-vgg", DeconvNet, ISSUE)
def mirror_vgg(bands: int, classes: int, **options: Any) -> DeconvNet:
    """Return the thread's net, made right.

    fc6 moves over the map instead of seeing it whole, so tiles of every size have the same weights;
    the decoder has ReLUs and batch norms, so its depth counts; scores are linear, so a class can
    have evidence against it. Kernels start from a normal distribution of variance 2 / (their area
    times the inputs; the outputs, if they are transposed), after He et al. (arXiv 1502.01852).
    """
    mended = {"unpooling": "repeat", "middle": "same", "dropout": 0.5}
    net = DeconvNet(bands, classes, **{**mended, **options})
    # bilinear kernels, which have no bias, stay
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.bias is not None:
            nn.init.kaiming_normal_(layer.weight)
    return net


class MirrorVGGThread(Net):
    """The thread's net as it was posted, for tiles of one size only.

    More blocks are added until the map is 8 px wide or less; then fc6 sees it whole, so every logit
    depends on every pixel of the tile and on where in it it lies. The decoder has no ReLU, so all
    its layers are one affine map, and the scores have one, so they are never negative.

    Args:
        bands: channels of the input.
        classes: channels of the output.
        size: height and width of the input in px: 32 times 1 to 8, or such times 2, 4, ...
        width: channels of the first block; 64 in the thread. Every other block scales.
        head: channels of fc6 and fc7; 4096 in the thread.
        dropout: share of fc6 and fc7 activations dropped in training.

    Shape:
        (N, bands, size, size) float32, normalised -> (N, classes, size, size), not negative
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        size: int = 224,
        width: int = 64,
        head: int = 4096,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        side, added = size / 32, 0
        while side > 8:
            side, added = side / 2, added + 1
        if side < 1 or side != int(side):
            raise ValueError(f"size {size} is not 32 times 1 to 8, or twice, four times ... that")
        self.size = size
        self.limits = (
            f"mirror-vgg-thread takes tiles of {size} px only, with weights for that size; no halo "
            "makes its tiles agree, its decoder is one affine map, its scores are never negative: "
            "mirror-vgg is the same net made right"
        )
        channels = [bands, *(width * factor for factor in WIDTHS), *[8 * width] * added]
        blocks = range(1, 6 + added)
        self.encoder = nn.Sequential(
            *(vgg_block(n, channels[n - 1], channels[n], pool=nn.MaxPool2d(2)) for n in blocks)
        )
        self.fc6 = conv_relu("6", int(side), channels[-1], head, padding=0)
        self.fc7 = conv_relu("7", 1, head, head)
        self.dropout = nn.Dropout(dropout)
        layers: list[nn.Module] = [nn.ConvTranspose2d(head, channels[-1], int(side))]
        inputs = channels[-1]
        for n in reversed(blocks):
            layers.append(Repeat(2))
            for factor in DECODER[min(n, 5)]:
                layers.append(nn.ConvTranspose2d(inputs, width * factor, 3, padding=1))
                inputs = width * factor
        self.decoder = nn.Sequential(*layers)
        self.score = nn.Conv2d(inputs, classes, 1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the size of `x`."""
        x = self.dropout(self.fc7(self.dropout(self.fc6(self.encoder(x)))))
        score: Tensor = self.relu(self.score(self.decoder(x)))
        return score


@register_model("mirror-vgg-thread", MirrorVGGThread, ISSUE)
def mirror_vgg_thread(bands: int, classes: int, **options: Any) -> MirrorVGGThread:
    """Return the thread's net as it was posted."""
    return MirrorVGGThread(bands, classes, **options)
