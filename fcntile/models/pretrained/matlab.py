"""Weights of a MatConvNet `dagnn` model, in a `.mat` file."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fcntile.errors import ModelError
from fcntile.models.pretrained.arrays import Arrays, real_numbers

# conv1_1_filter and conv1_1_bias, or conv1_1f and conv1_1b
PARAMETER = re.compile(r"(.+?)(?:_filter|f)$|(.+?)(?:_bias|b)$")


def read_matlab(path: Path) -> Arrays:
    """Return the weights, the mean colour and the class names of a MatConvNet model.

    Raises:
        ModelError: if the file is of MATLAB 7.3, or damaged, or no such model.
    """
    with path.open("rb") as file:
        if file.read(10) == b"MATLAB 7.3":
            raise ModelError(
                f"{path} is a MATLAB 7.3 file: save it again in MATLAB, with save(..., '-v7')"
            )
    from scipy.io import loadmat

    try:
        content = loadmat(path, struct_as_record=False, variable_names=["params", "meta"])
        tensors = dict(_parameters(content["params"].flat))
        meta = content["meta"].flat[0] if "meta" in content else None
        return Arrays("matconvnet", tensors, _mean(meta), _classes(meta))
    except KeyError as error:
        raise ModelError(f"{path} holds no {error}: it is no dagnn model of MatConvNet") from error
    except Exception as error:  # scipy raises what it likes on a damaged file
        raise ModelError(f"cannot read the weights {path}: {error}") from error


def _parameters(params: Any) -> Iterator[tuple[str, Tensor]]:
    for parameter in params:
        match = PARAMETER.fullmatch(str(np.squeeze(parameter.name)))
        if match is None:
            continue
        value = torch.from_numpy(real_numbers(parameter.value))
        if match[1]:  # MATLAB drops axes of length 1 at the end
            shape = (*value.shape, 1, 1)[:4]
            yield f"{match[1]}.weight", value.reshape(shape)
        else:
            yield f"{match[2]}.bias", value.reshape(-1)


def _field(struct: Any, name: str) -> Any:
    """Return a structure inside a structure; None if it is not there."""
    value = getattr(struct, name, None)
    return value.flat[0] if isinstance(value, np.ndarray) and value.dtype == object else value


def _mean(meta: Any) -> tuple[float, ...] | None:
    """Return the mean colour: of `averageImage`, one colour or an image."""
    average = getattr(_field(meta, "normalization"), "averageImage", None)
    if average is None or not np.size(average) or np.size(average) % 3:
        return None
    return tuple(real_numbers(average, "float64").reshape(-1, 3).mean(0).tolist())


def _classes(meta: Any) -> tuple[str, ...]:
    """Return the names of the classes, which are a cell array."""
    names = getattr(_field(meta, "classes"), "description", None)
    return tuple(str(np.squeeze(name)) for name in np.ravel(names)) if names is not None else ()
