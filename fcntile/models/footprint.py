"""How much memory a forward pass takes at its fullest moment."""

import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fcntile.models.layers import as_run
from fcntile.models.registry import Net

SIDE = 128  # px of the tile that is tried, or the next multiple of the net's stride


@dataclass(frozen=True)
class Footprint:
    """Memory of a forward pass in float32, in bytes for each pixel of a tile.

    What kernels need for themselves is not in it.

    Args:
        maps: all that are held at a time.
        by_size: the same, if freed memory only ever served another map of that size. Heaps are
            between the two: the more sizes there are, the more holes.
    """

    maps: float
    by_size: float


def footprint(net: Net, bands: int) -> Footprint:
    """Return what a forward pass takes, by that of a small tile.

    Args:
        net: on the CPU.
        bands: channels of the tile.
    """
    side = net.size or -(-SIDE // net.stride) * net.stride
    run = as_run(net)
    known = {w.untyped_storage()._cdata for w in (*run.parameters(), *run.buffers())}
    scale = _Scale(known)
    with torch.inference_mode(), scale:
        run(torch.zeros(1, bands, side, side))
    return Footprint(scale.peak / side**2, sum(scale.peaks.values()) / side**2)


class _Scale(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Weighs what operations make, for as long as it is held.

    Args:
        known: storages that are not weighed.
    """

    def __init__(self, known: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = self.peak = 0
        self.peaks: Counter[int] = Counter()  # by size of a storage
        self._by_size: Counter[int] = Counter()
        self._known = known

    def __torch_dispatch__(
        self,
        operation: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        made = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._weigh(tensor.untyped_storage())
        return made

    def _weigh(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        weakref.finalize(storage, self._let_go, key, size)
        self.held += size
        self._by_size[size] += size
        self.peak = max(self.peak, self.held)
        self.peaks[size] = max(self.peaks[size], self._by_size[size])

    def _let_go(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.held -= size
        self._by_size[size] -= size
