"""How much memory a net takes: its maps at the fullest moment of a pass, and its weights."""

import copy
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fcntile.models.layers import as_convolution, as_run, has_switches
from fcntile.models.registry import Net
from fcntile.models.winograd import Winograd

L = TypeVar("L", bound=nn.Module)

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


@dataclass(frozen=True)
class Weights:
    """Bytes of weights that a net ready to run takes beside its own.

    Args:
        made: by `prepare`, to stay.
        making: for the largest layer, while `prepare` is at it.
        laid_out: in each forward pass for the largest layer, for whose kernel they are turned.
    """

    made: float
    making: float
    laid_out: float


def weigh(net: nn.Module, device: torch.device, precision: torch.dtype) -> Weights:
    """Return what `prepare` takes, and what weights take then."""
    is_fast = device.type == "cpu" and precision == torch.float32
    stays = is_fast and has_switches(net)
    folds = any(isinstance(layer, nn.BatchNorm2d) for layer in net.modules())
    made, making, laid_out = 0.0, 0.0, 0.0
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            conv, size = as_convolution(_shape_of(layer)), layer.weight.nbytes
            if is_fast and not stays and Winograd.suits(conv):
                made += size * Winograd.growth(layer.kernel_size[0])
            else:
                made += 0 if stays else size
                laid_out = max(laid_out, size if is_fast else 0)
            if not stays:
                making = max(making, size * (folds + (type(conv) is not type(layer))))
    return Weights(made, making, laid_out)


def _shape_of(layer: L) -> L:
    """Return a layer whose weights have shapes only."""
    layer = copy.copy(layer)
    layer._parameters = {
        name: weight if weight is None else nn.Parameter(weight.to("meta"), requires_grad=False)
        for name, weight in layer._parameters.items()
    }
    return layer


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

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from importing its compiler, a second's work, to keep it away from here."""
        return False

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
