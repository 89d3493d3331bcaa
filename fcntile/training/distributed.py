"""Several processes of one run, as torchrun starts them."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what it sets, all together


@dataclass(frozen=True)
class Group:
    """The processes of a run.

    Args:
        rank: number of this one, from 0; 0 writes files and talks.
        size: how many there are.
        local: number of this one on its machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def total(self, sums: Tensor) -> Tensor:
        """Return a tensor summed over all processes, with gradient."""
        if self.size == 1:
            return sums
        total: Tensor = _Total.apply(sums)  # type: ignore[no-untyped-call]
        return total

    def any(self, flag: bool, device: torch.device) -> bool:
        """Tell whether a flag is set in any process."""
        if self.size == 1:
            return flag
        said = torch.tensor(float(flag), device=device)
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return bool(said)

    def agree(self, number: int, device: torch.device) -> bool:
        """Tell whether all processes have the same number."""
        if self.size == 1:
            return True
        both = torch.tensor([number, -number], device=device)
        dist.all_reduce(both, dist.ReduceOp.MAX)
        return bool(both.sum() == 0)

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the first one's tensors."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Return when every process is here."""
        if self.size > 1:
            dist.barrier()


class _Total(torch.autograd.Function):
    """A sum over all processes; so is its gradient, for every process has a loss of its own."""

    @staticmethod
    def forward(ctx: Any, sums: Tensor) -> Tensor:
        total = sums.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


@contextmanager
def join_group(on_cpu: bool) -> Iterator[Group]:
    """Join the processes that torchrun started; alone without it.

    Args:
        on_cpu: whether the net runs on CPUs, whose processes talk by gloo instead of NCCL.
    """
    if not all(name in os.environ for name in TORCHRUN):
        yield Group()
        return
    dist.init_process_group("gloo" if on_cpu else "nccl")
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", 0)))
    finally:
        dist.destroy_process_group()
