"""GDAL, kept in order: opening rasters, their files, its cache and threads."""

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from fcntile.errors import InputError, reason

# rasterio lets some of GDAL's errors through as they are, and has no public name for them
GDAL_ERRORS = (RasterioError, CPLE_BaseError, OSError)

NETWORK = re.compile(
    r"\b(https?|ftp|s3|gs|az|adls|oss|swift|hdfs|webhdfs)://"
    r"|/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)"
)
INDEXES = ("GTI", "STACIT", "STACTA", "WMS", "WMTS")  # drivers of what GDAL does not look into
REFERENCES = re.compile(rb"<(VRTDataset|GDALTileIndexDataset|GDAL_WMS|Capabilities)\b")
# A failed request is sent again after 0.25 s, 0.5 s, 1 s and so on: a server may be out for 15 s.
# One that says nothing for 20 s has failed; by itself GDAL waits for ever
RETRIES = {
    "GDAL_HTTP_MAX_RETRY": 6,
    "GDAL_HTTP_RETRY_DELAY": 0.25,
    "GDAL_HTTP_CONNECTTIMEOUT": 20,
    "GDAL_HTTP_LOW_SPEED_TIME": 20,
    "GDAL_HTTP_LOW_SPEED_LIMIT": 1,
}
# With more threads GDAL (3.10) reads many ranges at once, does not see that one has failed, and
# takes zeros for its pixels; with one it asks again
SAFE_THREADS = {"GDAL_NUM_THREADS": 1}


@contextmanager
def open_raster(path: str, *, threads: int = 1) -> Iterator[rasterio.DatasetReader]:
    """Open whatever rasterio opens: files, `/vsi...`, URLs, archives.

    GDAL's block cache is bounded by the raster's width while it is open. Settings that the user
    made in the environment are left alone, but for GDAL_NUM_THREADS behind a network (and in
    `safe_process`).

    Args:
        path: what rasterio calls a dataset identifier.
        threads: for decompression of what is on this machine.

    Raises:
        InputError: if it cannot be opened, with GDAL's reason.
    """
    with ExitStack() as stack:
        stack.enter_context(_gdal(**_reading(threads)))
        raster = stack.enter_context(open_file(path))
        if not is_local(raster):
            stack.enter_context(rasterio.Env(**SAFE_THREADS))
            raster = stack.enter_context(open_file(path))
        stack.enter_context(bounded_cache(raster, raster.width))
        yield raster


def files_of(raster: rasterio.DatasetReader) -> list[str]:
    """Return the files that a raster is made of; none behind a network.

    There GDAL would send some 40 requests to find that out.
    """
    return [] if NETWORK.search(raster.name) else list(raster.files)


def is_local(raster: rasterio.DatasetReader) -> bool:
    """Tell whether a raster is surely files of this machine, with all that it refers to."""
    files = files_of(raster)
    return bool(files) and not has_unnamed_files(raster) and all(map(os.path.exists, files))


def has_unnamed_files(raster: rasterio.DatasetReader) -> bool:
    """Tell whether a raster may be made of files that GDAL does not name.

    It names the sources of a VRT, but neither what these are made of themselves, nor the tiles of
    an index.
    """
    return raster.driver in INDEXES or any(map(_refers, _sources(raster)))


def all_files(raster: rasterio.DatasetReader) -> list[str]:
    """Return the files that a raster is made of, with those of VRTs in it; not of other indexes."""
    files = files_of(raster)
    for name in filter(_refers, _sources(raster)):
        with suppress(InputError), open_file(name) as inner:
            files += all_files(inner)
    return files


def _sources(raster: rasterio.DatasetReader) -> list[str]:
    return [name for name in files_of(raster) if name != raster.name]


def _refers(path: str) -> bool:
    """Tell whether a file is one that only says which others it is made of."""
    if path.endswith(".vrt") or ".gti." in path:
        return True
    try:
        with Path(path).open("rb") as file:
            return REFERENCES.search(file.read(4096)) is not None
    except OSError:  # it is not on this machine, or in an archive
        return False


def bounded_cache(raster: rasterio.DatasetReader, columns: int) -> rasterio.Env:
    """Return an environment in which GDAL's block cache has room for so many columns.

    GDAL's own default, 5 % of the machine's memory, would fill up with blocks that are never read
    again. (As an option, unlike as an environment variable, the number is in bytes.)
    """
    return _gdal(GDAL_CACHEMAX=cache_bytes(raster, columns))


def cache_bytes(raster: rasterio.DatasetReader, columns: int) -> int:
    """Return the size of a block cache that has room for so many columns."""
    return int(max(64 << 20, columns * cached_column_bytes(raster)))


def settings_of_process(path: str, threads: int, cache: int) -> AbstractContextManager[None]:
    """Make the settings of `open_raster` and `bounded_cache` for all threads of this process.

    Args:
        path: of the raster that is read.
        threads: for decompression.
        cache: bytes of GDAL's block cache.

    Raises:
        InputError: if the raster cannot be opened.
    """
    settings = {**_reading(threads), "GDAL_CACHEMAX": cache >> 20}  # there it is in MB
    with _gdal(**_reading(threads)), open_file(path) as raster:
        return _of_process(settings, {} if is_local(raster) else SAFE_THREADS)


@contextmanager
def safe_process() -> Iterator[None]:
    """Read with one of GDAL's threads and with retries, in all threads of this process.

    For what opens many files, any of which may refer to others behind a network.
    """
    with _of_process(RETRIES, SAFE_THREADS):
        yield


@contextmanager
def _of_process(settings: Mapping[str, float], anyway: Mapping[str, float]) -> Iterator[None]:
    """Make GDAL settings for all threads, those that the user has made excepted.

    Made in another than the main thread, an environment of rasterio's is that thread's alone, and
    those that read would not have it. GDAL looks into the process's environment, too.

    Args:
        settings: to be made.
        anyway: to be made whatever the user has.
    """
    made = {key: str(value) for key, value in settings.items() if key not in os.environ}
    made |= {key: str(value) for key, value in anyway.items()}
    before = {key: os.environ.get(key) for key in made}
    os.environ.update(made)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key)
            if value is not None:
                os.environ[key] = value


def cached_column_bytes(raster: rasterio.DatasetReader) -> int:
    """Return what GDAL holds for a column of pixels: the row of blocks that two strips share.

    As read and as the mask has it.
    """
    numpy_names = (name.replace("complex_int16", "complex64") for name in raster.dtypes)
    pixel = sum(np.dtype(name).itemsize for name in numpy_names) + 1
    block_rows = max(rows for rows, _ in raster.block_shapes)
    return int(max(2 * block_rows, 1024) * pixel)


def open_file(path: str, what: str = "raster") -> rasterio.DatasetReader:
    """Open a raster with GDAL's own settings, one thread behind a network.

    Args:
        path: what rasterio calls a dataset identifier.
        what: it holds, for messages.

    Raises:
        InputError: if it cannot be opened, with GDAL's reason.
    """
    try:
        with rasterio.Env(**(SAFE_THREADS if NETWORK.search(path) else {})):
            raster = rasterio.open(path)
    except (*GDAL_ERRORS, ValueError) as error:
        raise InputError(f"cannot open the {what} {path}: {reason(error)}") from error
    if not raster.count:
        inside = " ".join(raster.subdatasets) or "none"
        raster.close()
        raise InputError(f"{path} has no bands itself; choose one of its datasets: {inside}")
    return raster


IN_BACKGROUND = "fcntile-gdal"


def in_background(work: Callable[[], object]) -> None:
    """Do a long piece of GDAL's work, during which Python may still obey a signal.

    What a signal ends is the wait: GDAL itself cannot be stopped, and works on until the process
    ends (`works_on`).
    """
    done: Future[object] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # it is raised where one waits for it
            done.set_exception(error)

    threading.Thread(target=run, name=IN_BACKGROUND, daemon=True).start()
    done.result()


def works_on() -> bool:
    """Tell whether GDAL is at work that nobody waits for any more.

    To end a process in good order, which unloads GDAL, could crash it then.
    """
    return any(thread.name == IN_BACKGROUND for thread in threading.enumerate())


def _reading(threads: int) -> dict[str, float]:
    return {"GDAL_NUM_THREADS": threads, **RETRIES}


def _gdal(**settings: float) -> rasterio.Env:
    """Return an environment with these GDAL settings, but for those the user has made."""
    return rasterio.Env(**{key: value for key, value in settings.items() if key not in os.environ})
