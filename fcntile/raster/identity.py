"""Is it the same raster as before?"""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rasterio
from rasterio.windows import Window

from fcntile.raster.gdal import files_of, is_local

MADE_BY_VIEWERS = (".aux.xml", ".ovr")  # beside a raster that they show
SAMPLES, SIDE = 4, 64  # windows along each axis, and their px


def identify(raster: rasterio.DatasetReader) -> dict[str, Any]:
    """Return what tells a raster from another one, and from itself after a change.

    Files are told by size and time of change; what is no file of this machine, by its header and
    the pixels of a few windows. The header of a compressed GeoTIFF has the size of every block, so
    that four windows are enough: each may be a request.
    """
    header = raster.dtypes, raster.crs, raster.transform, raster.nodatavals, raster.mask_flag_enums
    crc = zlib.crc32(repr(header).encode())
    facts = {
        "width": raster.width,
        "height": raster.height,
        "bands": raster.count,
        "header": f"{crc:08x}",
    }
    files = [Path(name) for name in files_of(raster) if not name.endswith(MADE_BY_VIEWERS)]
    if is_local(raster) and all(path.is_file() for path in files):
        stats = [path.stat() for path in files]
        return {**facts, "files": [[s.st_size, s.st_mtime_ns] for s in stats]}
    sizes = _block_sizes(raster) if raster.compression else b""
    crc = zlib.crc32(sizes, crc)
    for row in range(SAMPLES):
        for column in (row,) if sizes else range(SAMPLES):
            y, x = raster.height * row // SAMPLES, raster.width * column // SAMPLES
            window = Window(x, y, min(SIDE, raster.width - x), min(SIDE, raster.height - y))
            crc = zlib.crc32(raster.read(window=window), crc)
    return {**facts, "samples": f"{crc:08x}"}


def _block_sizes(raster: rasterio.DatasetReader) -> bytes:
    """Return the sizes in bytes that a GeoTIFF's header gives for blocks; nothing for others."""

    def sizes(band: int) -> Iterator[str | None]:
        for (row, column), _ in raster.block_windows(band):
            yield raster.get_tag_item(f"BLOCK_SIZE_{column}_{row}", "TIFF", bidx=band)

    if raster.driver != "GTiff":
        return b""
    return repr([list(sizes(band)) for band in raster.indexes]).encode()
