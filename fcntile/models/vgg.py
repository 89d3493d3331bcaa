"""VGG16, the encoder of most networks here.

Configuration D of Simonyan and Zisserman (arXiv 1409.1556): five blocks of 3 x 3 convolutions, each
followed by max pooling, then fc6 and fc7, which are convolutions here (7 x 7 and 1 x 1). Layers are
called as in the Caffe net, so that weights find their place by name.
"""

from collections import OrderedDict

from torch import nn

CONVOLUTIONS = (2, 2, 3, 3, 3)  # of the blocks
WIDTHS = (1, 2, 4, 8, 8)  # channels of the blocks, in multiples of those of the first, 64


def conv_relu(
    name: str,
    kernel: int,
    inputs: int,
    outputs: int,
    *,
    batch_norm: bool = False,
    bias: bool | None = None,
    padding: int | None = None,
    dilation: int = 1,
    transposed: bool = False,
) -> nn.Sequential:
    """Return a convolution of odd size `kernel`, its batch norm if any, and its ReLU.

    Args:
        name: the layers are called conv, bn and relu with it; deconv, debn and relu if transposed.
        kernel: size, odd.
        inputs: channels.
        outputs: channels.
        batch_norm: whether there is one.
        bias: whether the convolution has one; by default only without batch norm.
        padding: by default what keeps height and width.
        dilation: distance of the kernel's taps.
        transposed: whether it is a transposed convolution.
    """
    bias = not batch_norm if bias is None else bias
    padding = dilation * (kernel // 2) if padding is None else padding
    prefix, kind = ("de", nn.ConvTranspose2d) if transposed else ("", nn.Conv2d)
    conv = kind(inputs, outputs, kernel, padding=padding, bias=bias, dilation=dilation)
    layers: OrderedDict[str, nn.Module] = OrderedDict({f"{prefix}conv{name}": conv})
    if batch_norm:
        layers[f"{prefix}bn{name}"] = nn.BatchNorm2d(outputs)
    layers[f"relu{name}"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def vgg_block(
    number: int,
    inputs: int,
    outputs: int,
    *,
    batch_norm: bool = False,
    bias: bool | None = None,
    first_padding: int | None = None,
    dilation: int = 1,
    pool: nn.Module | None,
) -> nn.Sequential:
    """Return a block of VGG16: its 3 x 3 convolutions and the pooling, if any.

    Args:
        number: of the block, from 1; beyond 5 they are like the fifth.
        inputs: channels.
        outputs: channels.
        batch_norm: whether there is one after every convolution.
        bias: whether convolutions have one; by default only without batch norm.
        first_padding: of the first convolution; by default what keeps height and width.
        dilation: distance of the kernels' taps.
        pool: the last layer.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index in range(1, CONVOLUTIONS[min(number, 5) - 1] + 1):
        layers[f"{number}_{index}"] = conv_relu(
            f"{number}_{index}",
            3,
            inputs if index == 1 else outputs,
            outputs,
            batch_norm=batch_norm,
            bias=bias,
            padding=first_padding if index == 1 else None,
            dilation=dilation,
        )
    if pool is not None:
        layers["pool"] = pool
    return nn.Sequential(layers)
