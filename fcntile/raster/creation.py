"""How GDAL is to write the outputs of a run, tried before any work.

GDAL mutters, or says nothing at all, about creation options that it does not obey or that change
pixels; so a small file is made with them and read back.
"""

import tempfile
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.windows import Window

from fcntile.errors import OptionError, OutputError, reason
from fcntile.files import check_apart, same_file
from fcntile.raster.gdal import GDAL_ERRORS
from fcntile.raster.gdal_messages import heard
from fcntile.raster.outputs import Output
from fcntile.raster.part_files import pixel_crc

SIDECARS = (".aux.xml", ".ovr", ".msk")
CHANGE_THE_GRID = {  # options of GDAL's COG driver; the tiling scheme CUSTOM is the grid as it is
    "aligned_levels",
    "extent",
    "res",
    "target_srs",
    "tiling_scheme",
    "zoom_level",
    "zoom_level_strategy",
}
FORMATS: dict[str, dict[str, Any]] = {
    "COG": {"compress": "deflate", "blocksize": 512},
    "GTiff": {"compress": "deflate", "tiled": True, "blockxsize": 512, "blockysize": 512},
}


def check_outputs(
    outputs: Sequence[Output],
    inputs: Mapping[str, Sequence[str | Path]],
    driver: str,
    creation_options: Mapping[str, str] | None = None,
) -> None:
    """Check that outputs can be made, and are nobody else's files.

    Args:
        outputs: of a run.
        inputs: files that it reads, by what they are.
        driver: "COG" or "GTiff".
        creation_options: GDAL creation options.

    Raises:
        OptionError: if GDAL cannot make an output with the creation options.
        OutputError: if an output is an input, or what GDAL would take for a part of another file.
    """
    files = map(same_file, (*chain(*inputs.values()), *(output.path for output in outputs)))
    owners = {f"{path}{suffix}": path for path in files for suffix in SIDECARS}
    for output in outputs:
        check_apart(output.path, inputs)
        if owner := owners.get(same_file(output.path)):
            raise OutputError(
                f"the output {output.path} would belong to {owner}: give it another name"
            )
    for name, value in (creation_options or {}).items():
        if driver == "COG" and name.lower() in CHANGE_THE_GRID and value.upper() != "CUSTOM":
            raise OptionError(f"--co {name.upper()} would change the grid: gdalwarp the mask")
    if creation_options:
        with tempfile.TemporaryDirectory(prefix="fcntile-") as folder:
            for output in outputs:
                options = creation(driver, output, creation_options)
                _try_options(Path(folder), driver, options, output)


def creation(
    driver: str, output: Output, given: Mapping[str, str], threads: int = 1
) -> dict[str, Any]:
    """Return the creation options of an output."""
    options = {**FORMATS[driver], "bigtiff": "IF_SAFER", "num_threads": threads}
    if driver == "COG":
        options["overview_resampling"] = "mode" if output.classes else "average"
    if output.is_half:
        options["nbits"] = 16
    return options | {key.lower(): value for key, value in given.items()}


def _try_options(folder: Path, driver: str, options: Mapping[str, Any], output: Output) -> None:
    """Raise OptionError if GDAL cannot make a small output with these creation options."""
    trial, made = folder / "trial.tif", folder / "tried.tif"
    side = 1024  # so that it has overviews, if any
    profile = {"driver": "GTiff", "width": side, "height": side, "count": len(output.bands)}
    where = {"crs": "EPSG:3857", "transform": Affine(1, 0, 9, 0, -1, 9)}
    half = {"nbits": 16} if output.is_half else {}
    profile |= where | half
    with rasterio.open(trial, "w", dtype=output.dtype, nodata=output.nodata, **profile) as raster:
        pattern = np.arange(side * side).reshape(side, side) % 200
        squares = np.kron(np.arange(50 * 50).reshape(50, 50) % 200, np.ones((20, 20), int))
        pattern[:1000, :500] = squares[:, :500]  # an overview has their values in their middles
        steps = pattern.astype(output.dtype)
        if output.dtype == "float32":  # numbers of which every bit counts
            steps = (pattern / 7).astype(np.float32)
        if output.is_half:
            steps = steps.astype(np.float16).astype(np.float32)
        raster.write(np.broadcast_to(steps, (len(output.bands), side, side)))
        if output.classes:
            raster.write_colormap(1, {i: (i, i, i, 255) for i in range(256)})
    try:
        with heard() as said:
            rasterio.shutil.copy(trial, made, driver=driver, **options)
        if said:
            raise OSError(said[0])
        with rasterio.open(trial) as before, rasterio.open(made) as after:
            is_same = _is_same(before, after)
    except (*GDAL_ERRORS, TypeError, ValueError) as error:
        raise OptionError(
            f"{driver} cannot be written with {dict(options)}: {reason(error)}"
        ) from error
    finally:
        for path in (trial, made):
            path.unlink(missing_ok=True)
    if not is_same:
        raise OptionError(f"{driver} with {dict(options)} would change the pixels")


def _is_same(before: rasterio.DatasetReader, after: rasterio.DatasetReader) -> bool:
    """Tell whether a trial file, and its overviews, are what was to be written."""

    def told(raster: rasterio.DatasetReader) -> str:
        return repr((raster.shape, raster.dtypes, raster.nodatavals, raster.crs))

    whole = Window(0, 0, before.width, before.height)
    if told(before) != told(after) or pixel_crc(before, whole) != pixel_crc(after, whole):
        return False
    if after.overviews(1)[:1] != [2]:
        return True
    squares = Window(0, 0, 500, 1000)
    small = after.read(window=squares, out_shape=(after.count, 500, 250))[:, 5::10, 5::10]
    return bool((small == before.read(window=squares)[:, 10::20, 10::20]).all())
