"""The folder of a run: what was asked for, what happened, and how to go on.

config.json                  settings, data and classes
split.geojson                ground held out for validation, for QGIS
metrics.csv  curves.png      loss, learning rate and scores by step
samples/step_00500.png       imagery, labels and mask of ground held out
events.out.tfevents.*        the same scores for TensorBoard, if it is installed
best.safetensors             the model with the best validation so far
last.checkpoint.safetensors  everything needed to go on
"""

import csv
import io
import json
import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rasterio.errors import RasterioError
from rasterio.warp import transform_geom
from rasterio.windows import Window, transform

from fcntile.errors import OptionError, OutputError
from fcntile.files import cannot_write, whole_file
from fcntile.training.dataset import Dataset
from fcntile.training.figures import draw_curves

log = logging.getLogger(__name__)

Row = dict[str, float | int | None]


class RunFolder:
    """The files of a run.

    Args:
        path: of the folder; made if it is not there.

    Raises:
        OutputError: if it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "last.checkpoint.safetensors"
        self.best = path / "best.safetensors"
        self._events: Any = None
        self._can_plot = find_spec("matplotlib") is not None
        if not self._can_plot:
            log.warning("no curves.png without matplotlib: pip install 'fcntile[plot]'")
        try:
            (path / "samples").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the run folder {path}: {error}") from error

    @property
    def is_used(self) -> bool:
        """Whether a run has left something here."""
        files = self.checkpoint, self.best, self.path / "config.json"
        return any(file.exists() for file in files)

    def check_config(self, config: Mapping[str, Any]) -> None:
        """Raise OptionError if the run in this folder was asked for with another configuration.

        Raises:
            OutputError: if the folder does not say how it was asked for.
        """
        path = self.path / "config.json"
        try:
            before = json.loads(path.read_text())
            before |= before.pop("settings")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise OutputError(
                f"cannot read {path}: {error}; begin the run anew with --overwrite"
            ) from error
        now = json.loads(json.dumps(config))
        now |= now.pop("settings")
        if different := [key for key in now if before.get(key) != now[key]]:
            said = [_change(key, before.get(key), now[key]) for key in different]
            raise OptionError(
                f"the run in {self.path} cannot go on with other options: {'; '.join(said)}"
            )

    def clear(self) -> None:
        """Remove what another run has left here: its files only, by their names.

        Raises:
            OutputError: if that cannot be done.
        """
        if not (self.path / "config.json").exists():
            return
        patterns = "samples/step_*.png", "events.out.tfevents.*", "metrics.csv", "curves.png"
        files = [file for pattern in patterns for file in self.path.glob(pattern)]
        try:
            for file in (*files, self.best, self.checkpoint):
                file.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot replace the run in {self.path}: {error}") from error

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write config.json."""
        self._write("config.json", json.dumps(config, indent=1))

    def write_split(self, dataset: Dataset, windows: Sequence[tuple[int, Window]]) -> None:
        """Write split.geojson: a polygon for each window held out, in WGS 84 if it has a place."""
        features = []
        for image, window in windows:
            grid = dataset.grids[image]
            window = window.intersection(Window(0, 0, grid.width, grid.height))
            properties = {
                "image": dataset.pairs[image].image,
                "column": window.col_off,
                "row": window.row_off,
                "width": window.width,
                "height": window.height,
            }
            features.append(
                {"type": "Feature", "properties": properties, "geometry": _outline(grid, window)}
            )
        content = {"type": "FeatureCollection", "features": features}
        self._write("split.geojson", json.dumps(content))

    def write_metrics(self, rows: Sequence[Row]) -> None:
        """Write metrics.csv and curves.png anew, and the last row for TensorBoard."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        table = io.StringIO()
        writer = csv.DictWriter(table, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self._write("metrics.csv", table.getvalue())
        if self._can_plot:
            draw_curves(self.path / "curves.png", rows)
        self._write_events(rows[-1])

    def close(self) -> None:
        """Let go of the file of events, and of the thread that writes it."""
        if self._events:
            self._events.close()
        self._events = None

    def _write(self, name: str, text: str) -> None:
        with whole_file(self.path / name) as written:
            written.write_text(text)

    def _write_events(self, row: Row) -> None:
        if self._events is False:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._events = False
            log.info("no TensorBoard events: pip install 'fcntile[train]'")
            return
        try:
            if self._events is None:
                self._events = SummaryWriter(str(self.path))
            for name, value in row.items():
                if name != "step" and value is not None:
                    self._events.add_scalar(name, value, row["step"])
            self._events.flush()
        except OSError as error:
            self._events = None  # its thread has ended: to close it would raise again
            raise cannot_write(self.path, error) from error


def _change(key: str, before: Any, now: Any) -> str:
    """Return in words what of a configuration changed; lists are too long to be shown.

    >>> _change("batch_size", 8, 4)
    '--batch-size was 8, is 4'
    >>> _change("pairs", [], [{}])
    'pairs differ'
    """
    if isinstance(now, list | dict) and key != "arch_options":
        return f"{key} differ"
    names = {"fcntile": "fcntile", "arch_options": "--arch-option"}
    name = names.get(key, "--" + key.replace("_", "-"))
    return f"{name} was {before}, is {now}"


def _outline(grid: Any, window: Window) -> dict[str, Any] | None:
    """Return a window's outline in WGS 84; None for a raster without CRS."""
    if grid.crs is None:
        return None
    place = transform(window, grid.transform)
    height, width = window.height, window.width
    corners = [(0, 0), (width, 0), (width, height), (0, height), (0, 0)]
    outline = {"type": "Polygon", "coordinates": [[place * corner for corner in corners]]}
    try:
        projected: dict[str, Any] = transform_geom(grid.crs, "EPSG:4326", outline)
    except RasterioError:
        return None
    return projected
