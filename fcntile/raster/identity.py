"""Is it the same raster as before?"""

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rasterio
from rasterio.windows import Window

from fcntile.errors import InputError, reason
from fcntile.raster.gdal import GDAL_ERRORS, files_of, has_unnamed_files
from fcntile.raster.gdal_messages import strict_gdal

MADE_BY_VIEWERS = (".aux.xml", ".ovr")  # beside a raster that they show
SAMPLES, SIDE = 4, 64  # windows along each axis, and their px
IN_ARCHIVE = re.compile(r"^(/vsi(zip|tar|gzip|7z|rar)/)+")


def identify(raster: rasterio.DatasetReader) -> dict[str, Any]:
    """Return what tells a raster from another one, and from itself after a change.

    Files, or the archives they are in, are told by size and time of change; what is not on this
    machine, by its header and the pixels of a few windows. The header of a compressed GeoTIFF has
    the size of every block, so that four windows are enough: each may be a request.

    Raises:
        InputError: if they cannot be read.
    """
    header = raster.dtypes, raster.crs, raster.transform, raster.nodatavals, raster.mask_flag_enums
    crc = zlib.crc32(repr(header).encode())
    facts = {
        "width": raster.width,
        "height": raster.height,
        "bands": raster.count,
        "header": f"{crc:08x}",
    }
    names = [name for name in files_of(raster) if not name.endswith(MADE_BY_VIEWERS)]
    files = [path for name in names if (path := on_disk(name))]
    if names and len(files) == len(names) and not has_unnamed_files(raster):
        stats = [path.stat() for path in files]
        return {**facts, "files": [[s.st_size, s.st_mtime_ns] for s in stats]}
    sizes = _block_sizes(raster) if raster.compression else b""
    crc = zlib.crc32(sizes, crc)
    for row in range(SAMPLES):
        for column in (row,) if sizes else range(SAMPLES):
            y, x = raster.height * row // SAMPLES, raster.width * column // SAMPLES
            window = Window(x, y, min(SIDE, raster.width - x), min(SIDE, raster.height - y))
            try:
                with strict_gdal():
                    crc = zlib.crc32(raster.read(window=window), crc)
            except GDAL_ERRORS as error:
                raise InputError(f"cannot read {raster.name}: {reason(error)}") from error
    return {**facts, "samples": f"{crc:08x}"}


def check_unchanged(raster: rasterio.DatasetReader, before: dict[str, Any]) -> None:
    """Raise InputError if the files of a raster are no longer those that were identified."""
    if "files" in before and identify(raster) != before:
        raise InputError(
            f"{raster.name} has changed since the run began, and some parts may be of what it was: "
            "use --restart"
        )


def on_disk(name: str) -> Path | None:
    """Return the file of this machine that GDAL means, or the archive it is in; None if neither."""
    inside = Path(IN_ARCHIVE.sub("", name).replace("{", "").replace("}", ""))  # GDAL may add {}
    return next((p for p in (Path(name), inside, *inside.parents) if p.is_file()), None)


def _block_sizes(raster: rasterio.DatasetReader) -> bytes:
    """Return the sizes in bytes that a GeoTIFF's header gives for blocks; nothing for others."""

    def sizes(band: int) -> Iterator[str | None]:
        for (row, column), _ in raster.block_windows(band):
            yield raster.get_tag_item(f"BLOCK_SIZE_{column}_{row}", "TIFF", bidx=band)

    if raster.driver != "GTiff":
        return b""
    return repr([list(sizes(band)) for band in raster.indexes]).encode()
