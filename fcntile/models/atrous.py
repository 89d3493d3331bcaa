"""VGG16 and ResNet-50 with one layer of scores, at stride 32 or, dilated, at stride 16.

The networks of aurora95/Keras-FCN (2016), on Simonyan and Zisserman's VGG16 and He et al.'s
ResNet-50 (arXiv 1512.03385). Taking the stride out of a layer and dilating what follows keeps its
kernels at their spacing (à trous; Chen et al., DeepLab, arXiv 1412.7062). Scores are interpolated
bilinearly to the size of the image, with half-pixel centres.
"""

from collections import OrderedDict
from typing import Any, ClassVar

from torch import Tensor, nn

from fcntile.models.registry import Net, register_model
from fcntile.models.upsampling import Bilinear
from fcntile.models.vgg import WIDTHS, conv_relu, vgg_block

KERAS_FCN = "github.com/aurora95/Keras-FCN"
BLOCKS = (3, 4, 6, 3)  # bottlenecks in each stage of ResNet-50


class AtrousVGG16(Net):
    """VGG16, fc6 and fc7 as convolutions, and scores.

    Args:
        bands: channels of the input.
        classes: channels of the output.
        output_stride: of the scores: 32, or 16 without the last pooling, fc6 being dilated by 2.
        width: channels of the first block; 64 in VGG16. Every other block scales.
        head: channels of fc6 and fc7.
        batch_norm: normalise after every convolution but the scores.
        dropout: share of fc6 and fc7 activations dropped in training.

    Shape:
        (N, bands, H, W) float32, normalised -> (N, classes, H, W) logits
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        output_stride: int = 16,
        width: int = 64,
        head: int = 4096,
        batch_norm: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        is_atrous = _is_atrous(output_stride)
        channels = [bands, *(width * factor for factor in WIDTHS)]
        self.encoder = nn.Sequential()
        for n in range(1, 6):
            pool = None if n == 5 and is_atrous else nn.MaxPool2d(2)
            block = vgg_block(n, channels[n - 1], channels[n], batch_norm=batch_norm, pool=pool)
            self.encoder.add_module(f"block{n}", block)
        dilation = 2 if is_atrous else 1
        self.fc6 = conv_relu("6", 7, channels[5], head, batch_norm=batch_norm, dilation=dilation)
        self.fc7 = conv_relu("7", 1, head, head, batch_norm=batch_norm)
        self.dropout = nn.Dropout(dropout)
        self.score_fr = nn.Conv2d(head, classes, 1)
        self.upscore = Bilinear(output_stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the size of `x`."""
        x = self.dropout(self.fc7(self.dropout(self.fc6(self.encoder(x)))))
        score: Tensor = self.upscore(self.score_fr(x))
        return score


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions with batch norms, added to their input.

    Shape:
        (N, inputs, H, W) -> (N, 4 * width, H / stride, W / stride)
    """

    normed: ClassVar = {"conv1": "bn1", "conv2": "bn2", "conv3": "bn3"}

    def __init__(
        self, inputs: int, width: int, stride: int, dilation: int, *, is_keras: bool
    ) -> None:
        super().__init__()
        strides, bias = ((stride, 1), True) if is_keras else ((1, stride), False)
        self.conv1 = nn.Conv2d(inputs, width, 1, stride=strides[0], bias=bias)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(
            width, width, 3, stride=strides[1], padding=dilation, dilation=dilation, bias=bias
        )
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=bias)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if inputs != 4 * width or stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride=stride, bias=bias),
                nn.BatchNorm2d(4 * width),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum, rectified."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        shortcut = x if self.downsample is None else self.downsample(x)
        total: Tensor = self.relu(shortcut + y)
        return total


class ResNet50(Net):
    """ResNet-50 and scores; layers are called as in torchvision.

    Args:
        bands: channels of the input.
        classes: channels of the output.
        output_stride: of the scores: 32, or 16 with a last stage of stride 1, dilated by 2.
        width: channels of the first layer; 64 in ResNet-50. Every other layer scales.
        style: "keras": strides in the 1 x 1 convolutions, as in the paper, biases, no padding of
            the first pooling; or "torchvision": strides in the 3 x 3 convolutions, no biases.

    Shape:
        (N, bands, H, W) float32, normalised -> (N, classes, H, W) logits
    """

    normed: ClassVar = {"conv1": "bn1"}

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        output_stride: int = 32,
        width: int = 64,
        style: str = "keras",
    ) -> None:
        super().__init__()
        if style not in ("keras", "torchvision"):
            raise ValueError(f"style {style!r} is neither keras nor torchvision")
        is_atrous, is_keras = _is_atrous(output_stride), style == "keras"
        self.conv1 = nn.Conv2d(bands, width, 7, stride=2, padding=3, bias=is_keras)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=0 if is_keras else 1)
        inputs = width
        for stage, number in enumerate(BLOCKS, 1):
            is_dilated = stage == 4 and is_atrous
            stride = 1 if stage == 1 or is_dilated else 2
            blocks: OrderedDict[str, nn.Module] = OrderedDict()
            for index in range(number):
                blocks[str(index)] = Bottleneck(
                    inputs,
                    width << (stage - 1),
                    stride if index == 0 else 1,
                    2 if is_dilated else 1,
                    is_keras=is_keras,
                )
                inputs = 4 * width << (stage - 1)
            self.add_module(f"layer{stage}", nn.Sequential(blocks))
        self.score = nn.Conv2d(inputs, classes, 1)
        self.upscore = Bilinear(output_stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the size of `x`."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        score: Tensor = self.upscore(self.score(x))
        return score


def _is_atrous(output_stride: int) -> bool:
    if output_stride not in (16, 32):
        raise ValueError(f"output stride {output_stride} is neither 16 nor 32")
    return output_stride == 16


@register_model("atrous-vgg16", AtrousVGG16, KERAS_FCN)
def atrous_vgg16(bands: int, classes: int, **options: Any) -> AtrousVGG16:
    """Return VGG16 with scores at stride 16 (`AtrousFCN_Vgg16_16s`), or 32 (`FCN_Vgg16_32s`)."""
    return AtrousVGG16(bands, classes, **options)


@register_model("fcn-resnet50", ResNet50, KERAS_FCN)
def fcn_resnet50(bands: int, classes: int, **options: Any) -> ResNet50:
    """Return ResNet-50 with scores at stride 32 (`FCN_Resnet50_32s`)."""
    return ResNet50(bands, classes, **options)


@register_model("atrous-resnet50", ResNet50, KERAS_FCN)
def atrous_resnet50(bands: int, classes: int, **options: Any) -> ResNet50:
    """Return ResNet-50 with scores at stride 16 (`AtrousFCN_Resnet50_16s`)."""
    return ResNet50(bands, classes, **{"output_stride": 16, **options})
