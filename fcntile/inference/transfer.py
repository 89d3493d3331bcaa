"""Copies between the host and the device, beside what the device computes.

A GPU works off what the host has queued for it. A host that waits for a copy lets that queue run
empty, and the device then idles until the next tiles are cut, copied and launched. So no stage that
feeds the device waits for it: copies are begun, on a stream of their own, and only who needs the
numbers waits for them.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Transfer:
    """Copies to and from a device; on CUDA beside its kernels, elsewhere at once.

    Copies of one transfer wait for one another, so each direction has its own.

    Args:
        device: to or from which is copied.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        on_cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if on_cuda else None  # type: ignore[no-untyped-call]

    def to_device(self, array: NDArray[np.generic]) -> Tensor:
        """Return an array on the device, where kernels launched from now on see it whole.

        Args:
            array: of any shape; on CUDA it may be written to at once.
        """
        host = torch.from_numpy(array)
        if self._stream is None:
            return host.to(self._device)
        kernels = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            # CUDA's allocator keeps pinned memory until it is copied
            copy = host.pin_memory().to(self._device, non_blocking=True)
        kernels.wait_stream(self._stream)
        copy.record_stream(kernels)  # or the next copy might be given its memory too early
        return copy

    def to_host(self, tensors: Sequence[Tensor]) -> Callable[[], list[NDArray[np.generic]]]:
        """Begin to copy what kernels launched so far make; return what waits for the copies.

        Args:
            tensors: on the device, not to be written to any more.
        """
        if self._stream is None:
            arrays = [t.cpu().numpy() for t in tensors]
            return lambda: arrays
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        copies = []
        with torch.cuda.stream(self._stream):
            for tensor in tensors:
                pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
                copies.append(pinned.copy_(tensor, non_blocking=True))
                tensor.record_stream(self._stream)
            copied = self._stream.record_event()

        def wait() -> list[NDArray[np.generic]]:
            copied.synchronize()
            return [c.numpy() for c in copies]

        return wait
