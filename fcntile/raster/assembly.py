"""Make the files of a run of its parts: all of them, or none.

A VRT puts the parts together; from that GDAL makes the file asked for (a Cloud-Optimized GeoTIFF
needs its overviews before its pixels). Only what reads back as the parts were written gets its
name.
"""

import errno
import os
import shutil
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.windows import Window

from fcntile.errors import OptionError, OutputError
from fcntile.raster.gdal import GDAL_ERRORS, heard, in_background
from fcntile.raster.outputs import Output
from fcntile.raster.part_files import BLOCK, cannot_write, named_crc, pixel_crc, sync
from fcntile.raster.parts import WHOLE, Parts, discard

SIDECARS = (".aux.xml", ".ovr", ".msk")
FORMATS: dict[str, dict[str, Any]] = {
    "COG": {"compress": "deflate", "blocksize": 512},
    "GTiff": {"compress": "deflate", "tiled": True, "blockxsize": 512, "blockysize": 512},
}


class Assembly:
    """The last step of a run.

    Args:
        parts: of the run.
        like: raster whose grid and georeference the outputs share.
        extent: window of it that they cover.
        driver: "COG" or "GTiff".
        creation_options: GDAL creation options, over compress=deflate and 512 px blocks.
        threads: for compression.

    Raises:
        OutputError: if nothing can be written beside them.
    """

    def __init__(
        self,
        parts: Parts,
        like: rasterio.DatasetReader,
        extent: Window,
        *,
        driver: str = "COG",
        creation_options: Mapping[str, str] | None = None,
        threads: int = 1,
    ) -> None:
        self._parts, self._like, self._extent, self._driver = parts, like, extent, driver
        self._given, self._threads = creation_options or {}, threads
        self._folder = parts.folder / WHOLE
        try:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir()
        except OSError as error:
            raise cannot_write(parts.folder, error) from error

    def finish(self) -> None:
        """Make the outputs of the parts, give them their names, and let the parts go.

        GDAL keeps silent about some writes that fail late, on a full disk for one; so only what
        reads back as the parts were written counts.

        Raises:
            OutputError: if they cannot be written.
        """
        try:
            made = [self._make(output) for output in self._parts.outputs]
            for output, path in reversed(list(zip(self._parts.outputs, made, strict=True))):
                _put(path, output.path)  # the mask, by which one knows, is the last
            discard(self._parts.folder)
        except GDAL_ERRORS as error:
            raise cannot_write(self._parts.outputs[0].path, error) from error

    def _make(self, output: Output) -> Path:
        """Return the whole file of an output, not yet under its name."""
        folder = self._folder / output.name
        folder.mkdir()
        made = folder / output.path.name
        whole = self._mosaic(folder, output)
        options = _creation(self._driver, output, self._given, self._threads)
        in_background(lambda: rasterio.shutil.copy(whole, made, driver=self._driver, **options))
        top, left = self._extent.row_off, self._extent.col_off
        with rasterio.open(made, num_threads=self._threads) as raster:
            for window in self._parts.windows:
                here = Window(
                    window.col_off - left, window.row_off - top, window.width, window.height
                )
                if pixel_crc(raster, here) != named_crc(self._parts.file(output, window)):
                    raise OSError("it does not read back as it was written")
        sync(made)
        return made

    def _mosaic(self, folder: Path, output: Output) -> Path:
        """Return a VRT of an output's parts, with all that it says beside its pixels."""
        empty, vrt = folder / "empty.tif", folder / "parts.vrt"
        _create_empty(empty, output, self._like, self._extent)
        rasterio.shutil.copy(empty, vrt, driver="VRT")
        tree = ET.parse(vrt)
        for number, band in enumerate(tree.getroot().iter("VRTRasterBand"), 1):
            for source in band.findall("SimpleSource"):
                band.remove(source)
            for window in self._parts.windows:
                band.append(self._source(output, window, number))
        tree.write(vrt)
        return vrt

    def _source(self, output: Output, window: Window, band: int) -> ET.Element:
        """Return what a VRT says of a part."""
        source = ET.Element("SimpleSource")
        path = os.path.relpath(self._parts.file(output, window), self._folder / output.name)
        ET.SubElement(source, "SourceFilename", relativeToVRT="1").text = path
        ET.SubElement(source, "SourceBand").text = str(band)
        width, height = str(window.width), str(window.height)
        ET.SubElement(
            source,
            "SourceProperties",
            RasterXSize=width,
            RasterYSize=height,
            DataType={"uint8": "Byte", "uint16": "UInt16", "float32": "Float32"}[output.dtype],
            BlockXSize=str(BLOCK),
            BlockYSize=str(BLOCK),
        )
        left, top = window.col_off - self._extent.col_off, window.row_off - self._extent.row_off
        size: dict[str, Any] = {"xSize": width, "ySize": height}
        ET.SubElement(source, "SrcRect", xOff="0", yOff="0", **size)
        ET.SubElement(source, "DstRect", xOff=str(left), yOff=str(top), **size)
        return source


def check_outputs(
    outputs: Sequence[Output],
    inputs: Iterable[Path],
    driver: str,
    creation_options: Mapping[str, str] | None = None,
) -> None:
    """Check that outputs can be made, and are nobody else's files.

    Args:
        outputs: of a run.
        inputs: files that it reads.
        driver: "COG" or "GTiff".
        creation_options: GDAL creation options.

    Raises:
        OptionError: if GDAL cannot make an output with the creation options.
        OutputError: if an output is an input, or what GDAL would take for a part of another file.
    """
    read = {path.resolve() for path in inputs}
    files = [*read, *(output.path.resolve() for output in outputs)]
    owners = {Path(f"{path}{suffix}"): path for path in files for suffix in SIDECARS}
    for output in outputs:
        path = output.path.resolve()
        if path in read:
            raise OutputError(f"the output {output.path} is an input, or a part of one")
        if path in owners:
            raise OutputError(
                f"the output {output.path} would belong to {owners[path]}: give it another name"
            )
    if creation_options:
        with tempfile.TemporaryDirectory(prefix="fcntile-") as folder:
            for output in outputs:
                options = _creation(driver, output, creation_options)
                _try_options(Path(folder), driver, options, output)


def _creation(
    driver: str, output: Output, given: Mapping[str, str], threads: int = 1
) -> dict[str, Any]:
    """Return the creation options of an output."""
    options = {**FORMATS[driver], "bigtiff": "IF_SAFER", "num_threads": threads}
    if driver == "COG":
        options["overview_resampling"] = "mode" if output.classes else "average"
    if output.is_half:
        options["nbits"] = 16
    return options | {key.lower(): value for key, value in given.items()}


def _put(made: Path, path: Path) -> None:
    """Give a whole file and its sidecars their names."""
    for suffix in SIDECARS:
        old, new = Path(f"{path}{suffix}"), Path(f"{made}{suffix}")
        old.unlink(missing_ok=True)  # of a mask that is being replaced
        if new.exists():
            _move(new, old)
    _move(made, path)
    sync(path.parent)


def _move(made: Path, path: Path) -> None:
    """Rename a file, or copy it if its name is to be on another file system."""
    try:
        made.replace(path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        near = path.with_name(f".{path.name}.unfinished")
        shutil.copyfile(made, near)
        sync(near)
        near.replace(path)


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
        raise OptionError(f"{driver} cannot be written with {dict(options)}: {error}") from error
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


def _create_empty(path: Path, output: Output, like: rasterio.DatasetReader, extent: Window) -> None:
    """Write a file without pixels, with all that the output says beside them."""
    if output.classes:
        path.with_name(f"{path.name}.aux.xml").write_text(_category_names(output))
    gcps, gcps_crs = like.gcps if like.transform.is_identity else ([], None)
    rows, columns = int(extent.row_off), int(extent.col_off)
    rpcs = copy(like.rpcs)  # rasterio keeps them for the next who asks
    if rpcs is not None:
        rpcs.line_off -= rows
        rpcs.samp_off -= columns
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=int(extent.width),
        height=int(extent.height),
        count=len(output.bands),
        dtype=output.dtype,
        nodata=output.nodata,
        crs=(gcps_crs or CRS()) if gcps else like.crs,
        transform=None if gcps else like.window_transform(extent),
        gcps=[_moved(point, rows, columns) for point in gcps] or None,
        rpcs=rpcs,
        tiled=True,
        blockxsize=512,
        blockysize=512,
        interleave="band",
        photometric="minisblack",  # else GDAL takes four bytes for red, green, blue and alpha
        sparse_ok=True,
        bigtiff="IF_SAFER",
    ) as empty:
        if output.classes:
            colors = {value: (*rgb, 255) for value, _, rgb in output.classes}
            empty.write_colormap(1, {**colors, int(output.nodata): (0, 0, 0, 0)})
            empty.update_tags(1, **{f"CLASS_{value}": name for value, name, _ in output.classes})
        empty.descriptions = output.bands
        if (output.scale, output.offset) != (1, 0):
            empty.scales = [output.scale] * len(output.bands)
            empty.offsets = [output.offset] * len(output.bands)
        empty.update_tags(**output.tags)


def _moved(point: GroundControlPoint, rows: int, columns: int) -> GroundControlPoint:
    """Return a ground control point for a window that begins at a row and column."""
    if not rows and not columns:
        return point
    return GroundControlPoint(
        point.row - rows, point.col - columns, point.x, point.y, point.z, point.id, point.info
    )


def _category_names(output: Output) -> str:
    """Return GDAL's sidecar (PAM) with the class names; rasterio has no call for them.

    GDAL finds a name by counting: values without a class have an empty one.
    """
    by_value = {value: name for value, name, _ in output.classes}
    root = ET.Element("PAMDataset")
    names = ET.SubElement(ET.SubElement(root, "PAMRasterBand", band="1"), "CategoryNames")
    for value in range(max(by_value) + 1):
        ET.SubElement(names, "Category").text = by_value.get(value, "")
    return ET.tostring(root, encoding="unicode")
