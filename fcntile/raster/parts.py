"""Finished parts of a run, in a folder beside its output, so that no work is lost.

A part is a window of the raster, as small GeoTIFFs, one for each output. A file gets its name only
when it is whole and on the disk, and the name ends with the CRC-32 of its pixels: what does not
read back so, is not there. A manifest says what the parts are of; a lock, which the system takes
back from a process that dies, keeps a second process out.
"""

import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window

from fcntile.errors import OutputError
from fcntile.raster.gdal import GDAL_ERRORS
from fcntile.raster.outputs import Output

log = logging.getLogger(__name__)

BLOCK = 256  # px; blocks of a part's files, and rows that are written and checked at a time
MANIFEST, LOCK = "manifest.json", "lock"
NAME = re.compile(r"([a-z]+)-(\d+)-(\d+)-[0-9a-f]{8}\.tif")  # output, row, column, CRC-32

Facts = Mapping[str, Any]  # what a run is of, as JSON has it


def plan_parts(extent: Window, rows: int, columns: int) -> list[Window]:
    """Cut a window in parts: swath by swath, each from top to bottom.

    Args:
        extent: what is to be predicted.
        rows: of a part.
        columns: of a swath.
    """
    (top, bottom), (left, right) = extent.toranges()
    return [
        Window.from_slices((y, min(y + rows, bottom)), (x, min(x + columns, right)))
        for x in range(left, right, columns)
        for y in range(top, bottom, rows)
    ]


def parts_folder(output: Path) -> Path:
    """Return where the parts of an output are kept."""
    return output.with_name(f"{output.name}.parts")


def earlier_facts(output: Path) -> Facts:
    """Return what the parts beside an output are of; nothing if there are none."""
    facts: Facts = _manifest(parts_folder(output)).get("facts", {})
    return facts


def _manifest(folder: Path) -> dict[str, Any]:
    """Return what a folder's manifest says; nothing if it cannot be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


class Parts:
    """The parts of a run.

    Args:
        folder: where they are.
        outputs: files that the run makes.
        windows: of all parts.
    """

    def __init__(self, folder: Path, outputs: Sequence[Output], windows: Sequence[Window]) -> None:
        self.folder, self.outputs, self.windows = folder, outputs, windows
        self._files: dict[tuple[str, int, int], Path] = {}  # by output, row and column
        for path in folder.glob("*.tif"):
            self._note(path)

    def _note(self, path: Path) -> None:
        """Take a file into account, if its name is that of a part's."""
        if found := NAME.fullmatch(path.name):
            self._files[found[1], int(found[2]), int(found[3])] = path

    def file(self, output: Output, window: Window) -> Path:
        """Return the file of a finished part."""
        return self._files[output.name, window.row_off, window.col_off]

    def is_done(self, window: Window) -> bool:
        """Tell whether a part is finished."""
        return all((o.name, window.row_off, window.col_off) in self._files for o in self.outputs)

    def missing(self) -> list[Window]:
        """Return the parts that are not finished."""
        return [window for window in self.windows if not self.is_done(window)]

    def forget_damaged(self) -> int:
        """Remove the files that do not read back as they were written; return how many."""
        damaged = [key for key, path in self._files.items() if not _reads_back(path)]
        for key in damaged:
            self._files.pop(key).unlink()
        return len(damaged)

    def narrow(self, windows: Sequence[Window]) -> bool:
        """Cut the missing parts that are wider than those of another cut; tell whether any is.

        Args:
            windows: of the other cut, which has less memory.
        """
        rows, columns = (max(n) for n in zip(*((w.height, w.width) for w in windows), strict=True))
        wide = [window for window in self.missing() if window.width > columns]
        for window in wide:
            for output in self.outputs:  # one of several may have been stored
                if path := self._files.pop((output.name, window.row_off, window.col_off), None):
                    path.unlink()
        kept = [window for window in self.windows if window not in wide]
        pieces = [piece for window in wide for piece in plan_parts(window, rows, columns)]
        self.windows = sorted((*kept, *pieces), key=lambda w: (w.col_off, w.row_off))
        return bool(wide)

    def add(self, paths: Sequence[Path]) -> None:
        """Take over finished files of a part, that `PartWriter` has written in the folder.

        Raises:
            OutputError: if they cannot be stored, or do not read back.
        """
        try:
            for path in paths:
                if not _reads_back(path):
                    raise OSError("it does not read back as it was written")
                sync(path)
                self._note(path)
            sync(self.folder)
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def receive(self, files: Sequence[tuple[str, bytes]]) -> None:
        """Take over a part's finished files that another process has made.

        Args:
            files: name and content of each.

        Raises:
            OutputError: if they cannot be stored, or do not read back.
        """
        paths = [self.folder / name for name, _ in files]
        try:
            for path, (_, content) in zip(paths, files, strict=True):
                arriving = path.with_suffix(".unfinished")
                arriving.write_bytes(content)
                arriving.replace(path)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        self.add(paths)


@contextmanager
def open_parts(
    outputs: Sequence[Output], facts: Facts, windows: Sequence[Window], *, restart: bool = False
) -> Iterator[Parts]:
    """Open the folder of a run's parts, that of an earlier run with the same facts if it is there.

    When it is left, a folder without a finished part goes; one whose outputs are made does, too
    (`Assembly` removes its parts).

    Args:
        outputs: files that the run makes; the folder is beside the first.
        facts: what decides what is in them.
        windows: of the parts. Of an earlier run's cut only missing parts that are wider are cut
            anew.
        restart: forget the parts of an earlier run.

    Raises:
        OutputError: if they cannot be kept there, another process does so, or they are of another
            run, naming what differs.
    """
    folder = parts_folder(outputs[0].path)
    try:
        folder.mkdir(exist_ok=True)
        lock = filelock.FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except filelock.Timeout as error:
        raise OutputError(
            f"another fcntile is writing {outputs[0].path} now, its parts are in {folder}"
        ) from error
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        yield _resumed(folder, outputs, facts, windows, restart=restart)
    finally:
        if not any(folder.glob("*.tif")):
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _resumed(
    folder: Path,
    outputs: Sequence[Output],
    facts: Facts,
    windows: Sequence[Window],
    *,
    restart: bool,
) -> Parts:
    """Return the parts in a folder, after a look at its manifest."""
    facts = {**facts, "files": [str(output.path.resolve()) for output in outputs]}
    if any(folder.glob("*.tif")) and not restart:
        known = _manifest(folder)
        if difference := differences(known.get("facts", {}), facts):
            raise OutputError(
                f"{folder} has parts of another run, whose {difference}: use --restart to begin "
                "anew, or another output"
            )
        for path in folder.glob("*.unfinished"):
            path.unlink()
        parts = Parts(folder, outputs, [Window(*window) for window in known["windows"]])
        if damaged := parts.forget_damaged():
            log.warning("%d file(s) in %s are damaged and will be made again", damaged, folder)
        if parts.narrow(windows):
            _write_manifest(folder, facts, parts.windows)
        return parts
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    _write_manifest(folder, facts, windows)
    return Parts(folder, outputs, windows)


def _write_manifest(folder: Path, facts: Facts, windows: Sequence[Window]) -> None:
    """Write what parts are of, and how they are cut; it appears only when it is whole.

    Raises:
        OutputError: if it cannot be written.
    """
    cut = [[int(n) for n in window.flatten()] for window in windows]
    written = folder / f".{MANIFEST}"
    try:
        written.write_text(json.dumps({"facts": facts, "windows": cut}))
        sync(written)
        written.replace(folder / MANIFEST)
    except OSError as error:
        raise cannot_write(folder, error) from error


def differences(before: Facts, now: Facts) -> str:
    """Return what differs in a few words; empty if nothing does."""
    now = json.loads(json.dumps(now))  # as it will be read: lists, not tuples
    return " and ".join(
        f"{name} was {json.dumps(before.get(name))}, not {json.dumps(now.get(name))}"
        for name in dict.fromkeys((*before, *now))
        if before.get(name) != now.get(name)
    )


class PartWriter:
    """The files of one part in the making: `write` rows from the top, then `finish`.

    Args:
        folder: where to make them.
        outputs: what to make.
        window: of the part.
    """

    def __init__(self, folder: Path, outputs: Sequence[Output], window: Window) -> None:
        self._folder, self._window = folder, window
        self._files = [_PartFile(folder, output, window) for output in outputs]
        self.rows = 0  # received so far

    def write(self, rows: Sequence[NDArray[np.generic]]) -> None:
        """Append rows.

        Args:
            rows: (bands, any number, width) of each output, in its dtype.

        Raises:
            OutputError: if they cannot be written, with GDAL's reason.
        """
        try:
            for file, array in zip(self._files, rows, strict=True):
                file.write(array)
        except GDAL_ERRORS as error:
            raise cannot_write(self._folder, error) from error
        self.rows += rows[0].shape[1]

    def finish(self) -> list[Path]:
        """Close the files and return them, named by what they hold.

        Raises:
            OutputError: if they cannot be written, or rows are missing.
        """
        assert self.rows == self._window.height, "rows are missing"
        try:
            return [file.finish() for file in self._files]
        except GDAL_ERRORS as error:
            raise cannot_write(self._folder, error) from error


class _PartFile:
    """One GeoTIFF of a part, each block of which is written once."""

    def __init__(self, folder: Path, output: Output, window: Window) -> None:
        self._name = f"{output.name}-{window.row_off}-{window.col_off}"
        self._height, self._width = int(window.height), int(window.width)
        self._path = folder / f"{self._name}.unfinished"
        options = {"nbits": 16} if output.is_half else {}
        try:
            self._file = rasterio.open(
                self._path,
                "w",
                driver="GTiff",
                width=self._width,
                height=self._height,
                count=len(output.bands),
                dtype=output.dtype,
                tiled=True,
                blockxsize=BLOCK,
                blockysize=BLOCK,
                interleave="band",
                compress="zstd",
                zstd_level=1,
                bigtiff="IF_SAFER",
                # where it lies, in px; one more, as rasterio remarks on the identity
                transform=Affine(1, 0, window.col_off + 1, 0, -1, -window.row_off),
                **options,
            )
        except GDAL_ERRORS as error:
            raise cannot_write(folder, error) from error
        self._filled = np.empty((len(output.bands), BLOCK, self._width), output.dtype)
        self._row = self._crc = 0

    def write(self, rows: NDArray[np.generic]) -> None:
        assert rows.dtype == self._filled.dtype, "numpy would wrap values without a word"
        while rows.shape[1]:
            used = self._row % BLOCK
            taken = min(rows.shape[1], BLOCK - used)
            self._filled[:, used : used + taken] = rows[:, :taken]
            self._row += taken
            rows = rows[:, taken:]
            if self._row % BLOCK == 0 or self._row == self._height:
                self._flush(used + taken)

    def _flush(self, height: int) -> None:
        block = np.ascontiguousarray(self._filled[:, :height])
        self._crc = zlib.crc32(block.data, self._crc)
        self._file.write(block, window=Window(0, self._row - height, self._width, height))

    def finish(self) -> Path:
        self._file.close()
        return self._path.replace(self._path.with_name(f"{self._name}-{self._crc:08x}.tif"))


def pixel_crc(raster: rasterio.DatasetReader, window: Window) -> int:
    """Return the CRC-32 of the pixels in a window, as the names of part files have it."""
    crc = 0
    for row in range(0, int(window.height), BLOCK):
        height = min(BLOCK, int(window.height) - row)
        here = Window(window.col_off, window.row_off + row, window.width, height)
        crc = zlib.crc32(raster.read(window=here), crc)
    return crc


def named_crc(path: Path) -> int:
    """Return the CRC-32 of its pixels that the name of a part's file says."""
    return int(path.stem.rsplit("-", 1)[1], 16)


def _reads_back(path: Path) -> bool:
    """Tell whether a part's file has the pixels that were put there."""
    try:
        with rasterio.open(path) as part:
            return pixel_crc(part, Window(0, 0, part.width, part.height)) == named_crc(path)
    except GDAL_ERRORS:
        return False


def discard(folder: Path) -> None:
    """Remove a folder of parts: at once by name, so that half of it is never gone on with."""
    gone = folder.with_name(f"{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def sync(path: Path) -> None:
    """Bring a file's content, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cannot_write(path: Path, error: Exception) -> OutputError:
    """Return the error for a file that cannot be written, with GDAL's reason."""
    return OutputError(f"cannot write {path} (is the disk full?): {error.__cause__ or error}")
