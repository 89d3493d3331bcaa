"""Finished parts of a run, in a folder beside its output, so that no work is lost.

A part is a window of the raster, as small GeoTIFFs, one for each output. A file gets its name only
when it is whole, and the name ends with the CRC-32 of its pixels: what does not read back so, after
a power cut for one, is not there. A manifest says what the parts are of; a lock, which the system
takes back from a process that dies, keeps a second process out.
"""

import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
from rasterio.windows import Window

from fcntile.errors import OutputError
from fcntile.files import cannot_write, sync, whole_file
from fcntile.raster.outputs import Output
from fcntile.raster.part_files import reads_back

log = logging.getLogger(__name__)

MANIFEST, LOCK = "manifest.json", "lock"
NAME = re.compile(r"([a-z]+)-(\d+)-(\d+)-[0-9a-f]{8}\.tif")  # output, row, column, CRC-32
WHOLE = "whole"  # folder of outputs in the making
OURS = re.compile(  # QGIS writes .aux.xml when someone looks, NFS .nfs when something goes
    rf"{NAME.pattern}(\.aux\.xml)?|.+\.unfinished(\.json)?|{re.escape(MANIFEST)}|{LOCK}|{WHOLE}"
    r"|\.nfs.+"
)

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
    except (OSError, ValueError, RecursionError):
        return {}
    try:
        facts, windows = manifest["facts"], [Window(*map(int, w)) for w in manifest["windows"]]
    except (TypeError, KeyError, ValueError, OverflowError):
        return {}
    return {"facts": facts, "windows": windows} if isinstance(facts, dict) else {}


class Parts:
    """The parts of a run.

    Args:
        folder: where they are.
        outputs: files that the run makes.
        windows: of all parts.
        facts: what they are of, for the manifest.
    """

    def __init__(
        self, folder: Path, outputs: Sequence[Output], windows: Sequence[Window], facts: Facts
    ) -> None:
        self.folder, self.outputs, self.windows = folder, outputs, windows
        self._facts = facts
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
        damaged = [key for key, path in self._files.items() if not reads_back(path)]
        for key in damaged:
            self._files.pop(key).unlink()
        return len(damaged)

    def narrow(self, windows: Sequence[Window]) -> None:
        """Cut the missing parts that are wider than those of another cut.

        Args:
            windows: of the other cut, which has less memory.

        Raises:
            OutputError: if the manifest cannot be written.
        """
        rows, columns = (max(n) for n in zip(*((w.height, w.width) for w in windows), strict=True))
        wide = [window for window in self.missing() if window.width > columns]
        self.cut(wide, [piece for window in wide for piece in plan_parts(window, rows, columns)])

    def cut(self, before: Sequence[Window], after: Sequence[Window]) -> None:
        """Cut missing parts in another way.

        Args:
            before: as they are cut now.
            after: of the same pixels.

        Raises:
            OutputError: if the manifest cannot be written.
        """
        for window in set(before) - set(after):
            for output in self.outputs:  # one of several may have been stored
                if path := self._files.pop((output.name, window.row_off, window.col_off), None):
                    path.unlink()
        windows = {*self.windows} - {*before} | {*after}
        if windows != {*self.windows}:
            self.windows = sorted(windows, key=lambda w: (w.col_off, w.row_off))
            _write_manifest(self.folder, self._facts, self.windows)

    def add(self, paths: Sequence[Path]) -> None:
        """Take over finished files of a part, that `PartWriter` has written in the folder.

        Raises:
            OutputError: if they cannot be stored, or do not read back.
        """
        try:
            for path in paths:
                if not reads_back(path):
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
        if foreign := [path for path in folder.iterdir() if not OURS.fullmatch(path.name)]:
            raise OutputError(
                f"{folder} is to hold parts, but there is {foreign[0].name}, which is none: move "
                "it away, or choose another output"
            )
        lock = filelock.FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except filelock.Timeout as error:
        raise OutputError(
            f"another fcntile is writing {outputs[0].path} now, its parts are in {folder}"
        ) from error
    except OutputError:
        raise
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
        if known and (difference := differences(known["facts"], facts)):
            raise OutputError(
                f"{folder} has parts of another run, whose {difference}: use --restart to begin "
                "anew, or another output"
            )
        if not known or not _fill(known["windows"], facts["window"]):
            raise OutputError(
                f"{folder} has parts, and no whole {MANIFEST} that says of what: use --restart to "
                "begin anew, or another output"
            )
        for path in folder.glob("*.unfinished"):
            path.unlink()
        parts = Parts(folder, outputs, known["windows"], facts)
        if damaged := parts.forget_damaged():
            log.warning("%d file(s) in %s are damaged and will be made again", damaged, folder)
        parts.narrow(windows)
        return parts
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    _write_manifest(folder, facts, windows)
    return Parts(folder, outputs, windows, facts)


def _fill(windows: Sequence[Window], extent: Sequence[int]) -> bool:
    """Tell whether windows lie in an extent (column, row, width, height) and fill it."""
    (top, bottom), (left, right) = Window(*extent).toranges()
    spans = [window.toranges() for window in windows]
    inside = all(top <= a < b <= bottom and left <= c < d <= right for (a, b), (c, d) in spans)
    areas = sum((b - a) * (d - c) for (a, b), (c, d) in spans)
    return inside and areas == (bottom - top) * (right - left)


def _write_manifest(folder: Path, facts: Facts, windows: Sequence[Window]) -> None:
    """Write what parts are of, and how they are cut; it appears only when it is whole.

    Raises:
        OutputError: if it cannot be written.
    """
    cut = [[int(n) for n in window.flatten()] for window in windows]
    with whole_file(folder / MANIFEST) as written:
        written.write_text(json.dumps({"facts": facts, "windows": cut}))


def differences(before: Facts, now: Facts) -> str:
    """Return what differs in a few words; empty if nothing does."""
    now = json.loads(json.dumps(now))  # as it will be read: lists, not tuples
    return " and ".join(
        f"{name} was {json.dumps(before.get(name))}, not {json.dumps(now.get(name))}"
        for name in dict.fromkeys((*before, *now))
        if before.get(name) != now.get(name)
    )


def discard(folder: Path) -> None:
    """Remove a folder of parts: at once by name, so that half of it is never gone on with."""
    gone = folder.with_name(f"{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
