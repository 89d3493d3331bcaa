"""Make the files of a run of its parts: all of them, or none.

A VRT puts the parts together; from that GDAL makes the file asked for (a Cloud-Optimized GeoTIFF
needs its overviews before its pixels). Only what reads back as the parts were written gets its
name.
"""

import errno
import os
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import rasterio
import rasterio.shutil
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.windows import Window

from fcntile.files import cannot_write, sync, whole_file
from fcntile.raster.creation import SIDECARS, creation
from fcntile.raster.gdal import GDAL_ERRORS, in_background
from fcntile.raster.outputs import Output
from fcntile.raster.part_files import BLOCK, named_crc, pixel_crc
from fcntile.raster.parts import WHOLE, Parts, discard


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
        options = creation(self._driver, output, self._given, self._threads)
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
        with whole_file(path) as near:
            shutil.copyfile(made, near)


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
        if like.tags().get("AREA_OR_POINT") == "Point":  # what coordinates of a pixel mean
            empty.update_tags(AREA_OR_POINT="Point")
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
