"""Weights of a MatConvNet `dagnn` model, in a `.mat` file."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fcntile.errors import ModelError
from fcntile.models.pretrained.arrays import Arrays

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
        content = loadmat(
            path, struct_as_record=False, squeeze_me=True, variable_names=["params", "meta"]
        )
        tensors = {}
        for parameter in np.atleast_1d(content["params"]):
            if match := PARAMETER.fullmatch(str(parameter.name)):
                name = f"{match[1]}.weight" if match[1] else f"{match[2]}.bias"
                value = np.asarray(parameter.value, np.float32)
                tensors[name] = torch.from_numpy(np.atleast_1d(value))
        meta = content.get("meta")
        return Arrays("matconvnet", tensors, _mean(meta), _classes(meta))
    except KeyError as error:
        raise ModelError(f"{path} holds no {error}: it is no dagnn model of MatConvNet") from error
    except Exception as error:  # scipy raises what it likes on a damaged file
        raise ModelError(f"cannot read the weights {path}: {error}") from error


def _mean(meta: Any) -> tuple[float, ...] | None:
    """Return the mean colour: of `averageImage`, one colour or an image."""
    average = getattr(getattr(meta, "normalization", None), "averageImage", None)
    if average is None or np.size(average) % 3:
        return None
    return tuple(np.asarray(average, float).reshape(-1, 3).mean(0).tolist())


def _classes(meta: Any) -> tuple[str, ...]:
    classes = getattr(meta, "classes", None)
    names = getattr(classes, "description", getattr(classes, "name", ()))
    return tuple(str(name) for name in np.atleast_1d(names))
