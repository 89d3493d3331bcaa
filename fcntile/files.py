"""Files of this machine: what they may be called, and how they come to be whole."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from fcntile.errors import OutputError, reason

LONGEST_SUFFIX = ".parts.gone"  # of what is beside an output while it is made


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError unless a file can be written at `path`, and its parts beside it."""
    try:
        str(path).encode()
        with suppress(FileNotFoundError, NotADirectoryError):
            path.with_name(f"{path.name}{LONGEST_SUFFIX}").lstat()
    except ValueError as error:
        raise OutputError(f"the output {str(path)!r} is no name for a file: {error}") from error
    except OSError as error:
        raise OutputError(f"the output cannot be {path}: {error.strerror}") from error
    if path.is_dir():
        raise OutputError(f"the output {path} is a directory: give a file name")
    if not path.parent.is_dir():
        raise OutputError(f"the output directory {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"the output directory {path.parent} is not writable")
    if path.exists() and not overwrite:
        raise OutputError(f"the output {path} exists: use --overwrite to replace it")


def check_apart(output: Path, inputs: Mapping[str, Sequence[str | Path]]) -> None:
    """Raise OutputError if an output is a file that is read.

    Args:
        output: to be written.
        inputs: files by what they are, such as "the model".
    """
    for what, paths in inputs.items():
        if same_file(output) in map(same_file, paths):
            raise OutputError(f"the output {output} is {what}: choose another")


def same_file(path: str | Path) -> str:
    """Return what is equal for two paths of one file, however they are written."""
    return str(path) if "://" in str(path) else str(Path(path).resolve())


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to: what is there becomes `path` once it is on the disk.

    Raises:
        OutputError: if it cannot be written; a file that was there before still is.
    """
    written = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    try:
        yield written
        sync(written)
        written.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            written.unlink()


def sync(path: Path) -> None:
    """Bring a file's content, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cannot_write(path: Path, error: Exception) -> OutputError:
    """Return the error for a file that cannot be written, with the reason; itself if it is one."""
    if isinstance(error, OutputError):
        return error
    return OutputError(f"cannot write {path} (is the disk full?): {reason(error)}")
