"""Networks by name.

A builder takes the bands and classes, and options by keyword.
"""

from collections.abc import Callable

from torch import nn

from fcntile.errors import ModelError


class Net(nn.Module):
    """What every network has beside its layers.

    Attributes:
        stride: total stride in pixels; height and width of the input must be multiples of it.
        halo: pixels beyond an output pixel that can reach it, in windows that start at multiples
            of the stride.
    """

    stride: int
    halo: int


Builder = Callable[..., Net]
BUILDERS: dict[str, Builder] = {}


def register_model(name: str) -> Callable[[Builder], Builder]:
    """Return a decorator that makes a builder known as `name`."""

    def register(builder: Builder) -> Builder:
        BUILDERS[name] = builder
        return builder

    return register


def list_models() -> list[str]:
    """Return the names of all networks.

    >>> "fcn8s" in list_models()
    True
    """
    return sorted(BUILDERS)


def create_model(name: str, bands: int, classes: int, **options: object) -> Net:
    """Return a new network.

    Args:
        name: one of `list_models()`.
        bands: channels of its input.
        classes: channels of its output.
        **options: what the builder of that network takes.

    Raises:
        ModelError: if the name or an option is unknown, or an option has a value it cannot have.
    """
    if name not in BUILDERS:
        raise ModelError(f"no network is called {name!r}; there are {', '.join(list_models())}")
    try:
        return BUILDERS[name](bands, classes, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{name} cannot be built with {options}: {error}") from error
