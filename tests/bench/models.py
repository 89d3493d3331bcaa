"""Write the model file of a net with random weights whose labels are of every class.

    python models.py OUTPUT probe|fcn8s

Random weights as they come give nearly every pixel the same label, and a mask of one colour costs
nothing to write and agrees with any other. So the scores are scaled and shifted until each class
has mean 0 and deviation 1 on the demo's orthophoto. Kernels are flat: noisy ones give masks
speckled as no trained net's are.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import rasterio
import torch
from nets import card
from rasters import DEMO
from torch import nn

from fcntile.models.model_file import save_model
from fcntile.models.registry import create_model

CLASSES = 6


@torch.no_grad()
def balance(layer, _, scores):
    """Standardise the scores of a 1 x 1 convolution, and its weights so that they stay so."""
    deviation, mean = torch.std_mean(scores, (0, 2, 3))
    layer.weight /= deviation[:, None, None, None]
    layer.bias.copy_((layer.bias - mean) / deviation)
    return (scores - mean[:, None, None]) / deviation[:, None, None]


@torch.no_grad()
def main(output, arch):
    torch.manual_seed(0)
    net = create_model(arch, 3, CLASSES).eval()
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    for layer in convolutions:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        layer.weight.copy_(layer.weight.mean((2, 3), keepdim=True).expand_as(layer.weight))
        nn.init.zeros_(layer.bias)
    made = card(arch, classes=CLASSES)
    with rasterio.open(DEMO) as demo:
        pixels = torch.from_numpy(demo.read()).float()[None]
    hooks = [m.register_forward_hook(balance) for m in convolutions if m.out_channels == CLASSES]
    net((pixels - made.bands[0].mean) / made.bands[0].std)
    for hook in hooks:
        hook.remove()
    save_model(output, net, made)


if __name__ == "__main__":
    main(*sys.argv[1:])
