"""Open a file of weights, whatever framework wrote it: arrays by name.

The format is told by the first bytes, never by the file's name.
"""

import stat
from collections.abc import Callable
from pathlib import Path

from fcntile.errors import ModelError
from fcntile.models.pretrained.arrays import Arrays
from fcntile.models.pretrained.caffe import read_caffe
from fcntile.models.pretrained.hdf5 import read_hdf5
from fcntile.models.pretrained.matlab import read_matlab
from fcntile.models.pretrained.numpy_file import read_numpy
from fcntile.models.pretrained.torch_file import read_safetensors, read_torch

HDF5 = b"\x89HDF\r\n\x1a\n"
READERS: dict[bytes, Callable[[Path], Arrays]] = {
    HDF5: read_hdf5,
    b"\x93NUMPY": read_numpy,
    b"MATLAB ": read_matlab,
    b"PK\x03\x04": read_torch,  # torch.save since 1.6
    b"\x80": read_torch,  # a pickle: torch.save before
}


def read_arrays(path: Path) -> Arrays:
    """Return what a file of weights holds.

    Raises:
        ModelError: if there is no such file, or it is of no known format, or damaged.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # a device may have no end
            kind = "directory" if stat.S_ISDIR(mode) else "device"
            raise ModelError(f"cannot read the weights {path}: it is a {kind}, not a file")
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise ModelError(f"cannot read the weights {path}: {error.strerror}") from error
    read = _choose_reader(path, head)
    try:
        return read(path)
    except ModelError:
        raise
    except Exception as error:  # whatever a reader stumbles over is a damaged file
        raise ModelError(f"cannot read the weights {path}, is it damaged? {error!r}") from error


def _choose_reader(path: Path, head: bytes) -> Callable[[Path], Arrays]:
    """Return what reads a file that begins with `head`."""
    for magic, read in READERS.items():
        if head.startswith(magic):
            return read
    if head[8:9] == b"{":  # after the length of the header
        return read_safetensors
    if b"ustar" in _at(path, 257):
        return read_torch  # torch.save before 0.1.10: torch says why not
    return read_caffe  # which has no mark


def _at(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(8)
