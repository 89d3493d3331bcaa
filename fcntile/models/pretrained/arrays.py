"""What a file of weights holds, before anything is known of its meaning."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Arrays:
    """Arrays by name.

    Args:
        framework: whose names, order of axes and colours they have: "classic" (Keras before 1.0,
            with Theano), "keras", "numpy" (tensorflow-vgg), "matconvnet", "caffe" or "torch".
        tensors: float32 by `layer.weight` and `layer.bias`, or as torch has it.
        mean: (red, green, blue) of the images, if the file says so.
        classes: names of the classes, if the file says so.
    """

    framework: str
    tensors: Mapping[str, Tensor]
    mean: tuple[float, ...] | None = None
    classes: tuple[str, ...] = ()


def real_numbers(values: Any, dtype: str = "float32") -> NDArray[Any]:
    """Return an array of floating-point numbers.

    Raises:
        ValueError: if they are complex; numpy would drop their imaginary part.
    """
    if np.iscomplexobj(values):
        raise ValueError("it has complex numbers, wanted are real ones: save it as float32")
    return np.asarray(values, dtype)
