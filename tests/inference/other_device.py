"""The program `fcntile` with a device made in Python: what runs on a GPU, where there is none.

Its tensors hold tensors of the host, and cannot be mixed with them. A GPU computes while the host
goes on, until the host asks for numbers: the threads that did so are named at the end. Rows are
copied as late as they may be, as if the device were far behind.
"""

import sys
import threading

import torch
from nets import *  # noqa: F403, registers its nets
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from fcntile.cli.main import main
from fcntile.inference import blend, devices
from fcntile.inference.transfer import Transfer

NAME = "elsewhere"
HOST = torch.device("cpu")
waiting: set[str] = set()


class Elsewhere(Tensor):
    """A tensor of the device."""

    @staticmethod
    def __new__(cls, held):
        with torch.inference_mode(False):
            place = {"dtype": held.dtype, "device": torch.device(NAME, 0)}
            made = Tensor._make_wrapper_subclass(cls, held.size(), held.stride(), **place)
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return run(operation, args, kwargs or {})


def run(operation, args, kwargs):
    """Do on the host what is asked of the device."""
    name, known = operation.overloadpacket.__name__, {}

    def held(x):
        if isinstance(x, Elsewhere):
            known[id(x.held)] = x
            return x.held
        if isinstance(x, Tensor) and x.ndim and name != "copy_":
            raise RuntimeError(f"{name} of tensors on two devices")
        return HOST if isinstance(x, torch.device) else x

    def there(x):
        if not isinstance(x, Tensor):
            return x
        return known[id(x)] if id(x) in known else Elsewhere(x)

    made = operation(*tree_map(held, args), **tree_map(held, kwargs))
    if kwargs.get("device") == HOST or not isinstance(made, (Tensor, tuple)):
        waiting.add(threading.current_thread().name)
        return made
    return tree_map(there, made)


def make_device():
    """Make the device known to torch, and return what keeps it known."""
    _setup_privateuseone_for_python_backend(NAME)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    library = torch.library.Library("aten", "IMPL")

    def empty(size, *, dtype=None, memory_format=torch.contiguous_format, **_):
        return Elsewhere(torch.empty(size, dtype=dtype, memory_format=memory_format))

    def empty_strided(size, stride, *, dtype=None, **_):
        return Elsewhere(torch.empty_strided(size, stride, dtype=dtype))

    def copy_from(source, target, non_blocking=False):
        return run(torch.ops.aten.copy_.default, (target, source), {})

    for name, function in (
        ("empty.memory_format", empty),
        ("empty_strided", empty_strided),
        ("_copy_from", copy_from),
    ):
        library.impl(name, function, "PrivateUse1")
    return library


class Late(Transfer):
    """Copies to the host once they are waited for."""

    def to_host(self, tensors):
        return lambda: super(Late, self).to_host(tensors)()


if __name__ == "__main__":
    library = make_device()
    choose = devices.choose_device
    devices.choose_device = lambda name: torch.device(name) if name == NAME else choose(name)
    blend.Transfer = Late
    try:
        main()
    finally:
        print("waiting:", *sorted(waiting), file=sys.stderr)
