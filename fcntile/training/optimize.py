"""The optimiser, the course of its learning rate, and the moving average of the weights."""

import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from fcntile.training.recipes import Settings

Tensors = tuple[Tensor, ...] | list[Tensor]


def make_optimizer(net: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """Return the optimiser of a net's trainable weights.

    Kernels decay; biases and the scales of norms do not, and have their own factor on the learning
    rate (2 in the FCN reference implementation).
    """
    trainable = [p for p in net.parameters() if p.requires_grad]
    groups = [
        {
            "params": [p for p in trainable if p.ndim > 1],
            "weight_decay": settings.weight_decay,
            "factor": 1.0,
        },
        {
            "params": [p for p in trainable if p.ndim <= 1],
            "weight_decay": 0.0,
            "factor": settings.bias_lr,
        },
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)
    return torch.optim.AdamW(groups, lr=settings.lr)


def learning_rate(step: int, settings: Settings) -> float:
    """Return the learning rate of a step, counted from 0.

    Linear warm-up, then half a cosine (Loshchilov and Hutter, arXiv 1608.03983), a polynomial of
    power 0.9 (Liu et al., ParseNet, arXiv 1506.04579), or no change.
    """
    done = step / settings.steps
    course: dict[str, float] = {
        "cosine": 0.5 + 0.5 * math.cos(math.pi * done),
        "poly": max(0.0, 1 - done) ** 0.9,
        "constant": 1.0,
    }
    rise = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    return settings.lr * rise * course[settings.schedule]


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def moving_average(net: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average of a net's weights and norm statistics.

    Its decay rises as (1 + n) / (10 + n) to `decay`, so it soon forgets the random start.
    """

    @torch.no_grad()
    def average(averages: Tensors, current: Tensors, count: Tensor | int) -> None:
        n = float(count)
        share = 1 - min(decay, (1 + n) / (10 + n))
        for old, new in zip(averages, current, strict=True):
            if old.is_floating_point():
                old.lerp_(new, share)
            else:
                old.copy_(new)

    averaged = AveragedModel(net, multi_avg_fn=average, use_buffers=True)
    return averaged.eval()
