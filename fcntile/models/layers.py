"""Rewrites of layers that leave the function of a net alone."""

import copy
from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

M = TypeVar("M", bound=nn.Module)


def fold_batch_norm(net: M) -> M:
    """Return a copy of a net, in evaluation mode, whose batch norms are inside its convolutions.

    A convolution followed by a batch norm inside an `nn.Sequential` becomes one convolution.
    Weights that stay as they are, are shared with `net`.
    """
    net = copy.copy(net)
    net._modules = {name: child and fold_batch_norm(child) for name, child in net._modules.items()}
    if isinstance(net, nn.Sequential):
        names = list(net._modules)
        for first, second in pairwise(names):
            a, b = net._modules[first], net._modules[second]
            if isinstance(a, nn.Conv2d) and isinstance(b, nn.BatchNorm2d):
                net._modules[first] = fuse_conv_bn_eval(a, b)
                net._modules[second] = nn.Identity()
    return net
