"""Activation checkpointing: train in less memory by computing layers twice.

Chen et al., *Training Deep Nets with Sublinear Memory Cost* (arXiv 1604.06174).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch.utils.checkpoint
from torch import Tensor, nn


def checkpoint(layer: nn.Module, *inputs: Tensor) -> Tensor:
    """Return what a layer gives, keeping only its inputs for the backward pass.

    Random numbers are the same the second time, and batch norms count a batch once.
    """
    run: Callable[..., Tensor] = torch.utils.checkpoint.checkpoint
    contexts: Any = lambda: (nullcontext(), _counted_already(layer))  # noqa: E731
    return run(layer, *inputs, use_reentrant=False, context_fn=contexts)


@contextmanager
def _counted_already(layer: nn.Module) -> Iterator[None]:
    """Leave the running statistics of batch norms as they are."""
    norms = [m for m in layer.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked -= 1
