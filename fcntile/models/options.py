"""Options of networks, checked before a net is built: what is no size or name is said so."""

import math
from collections.abc import Mapping, Sequence
from inspect import Parameter, signature
from typing import Any, get_type_hints

from fcntile.errors import ModelError

LARGEST = 65536  # of any number of channels, layers or pixels


def check_options(name: str, net: type, options: Mapping[str, object]) -> None:
    """Raise ModelError unless options are those of a network, and of their kinds.

    The keyword arguments of its class are its options, and their annotations the kinds: whole
    numbers are from 1, or from 0 if that is the default; other numbers are shares, from 0 to less
    than 1. What only the network knows it checks itself.

    Args:
        name: of the network.
        net: its class.
        options: to build it with.
    """
    parameters = signature(net).parameters
    known = [p.name for p in parameters.values() if p.kind is Parameter.KEYWORD_ONLY]
    hints = get_type_hints(net.__init__)  # type: ignore[misc]
    for option, value in options.items():
        if option not in known:
            raise ModelError(f"{name} has no option {option!r}; there are {', '.join(known)}")
        smallest = 0 if parameters[option].default == 0 else 1
        wanted, fits = _kind(hints[option], value, smallest)
        if not fits:
            raise ModelError(f"option {option} of {name} is {value!r}, wanted is {wanted}")


def _kind(hint: Any, value: object, smallest: int) -> tuple[str, bool]:
    """Return what a kind is called, and whether a value is of it."""
    if hint is bool:
        return "true or false", isinstance(value, bool)
    if hint is int:
        return f"a whole number from {smallest}", is_whole(value, smallest)
    if hint is float:
        return "a number from 0 to less than 1", is_number(value) and 0 <= value < 1  # type: ignore[operator]
    if hint is str:
        return "a name", isinstance(value, str)
    if hint == int | Sequence[int]:
        fits = all(is_whole(v, 1) for v in (value if isinstance(value, list | tuple) else [value]))
        return "a whole number from 1, or a list of such", fits
    if hint == Sequence[float] | None:
        return "a list of numbers", isinstance(value, list | tuple) and all(map(is_number, value))
    return str(hint), True


def is_whole(value: object, smallest: int) -> bool:
    """Tell whether a value is an integer that a size may be."""
    return type(value) is int and smallest <= value <= LARGEST


def is_number(value: object) -> bool:
    """Tell whether a value is a finite number, and no bool."""
    try:
        return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False
