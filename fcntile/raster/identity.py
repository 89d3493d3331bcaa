"""Is it the same raster as before?"""

import zlib
from pathlib import Path
from typing import Any

import rasterio
from rasterio.windows import Window

SAMPLES, SIDE = 4, 64  # windows along each axis, and their px


def identify(raster: rasterio.DatasetReader) -> dict[str, Any]:
    """Return what tells a raster from another one, and from itself after a change.

    Files are told by size and time of change; what is no file of this machine, by its header and
    the pixels of a few windows.
    """
    shape = {"width": raster.width, "height": raster.height, "bands": raster.count}
    files = [Path(name) for name in raster.files]
    if files and all(path.is_file() for path in files):
        stats = [path.stat() for path in files]
        return {**shape, "files": [[s.st_size, s.st_mtime_ns] for s in stats]}
    crc = zlib.crc32(repr((raster.dtypes, raster.crs, raster.transform)).encode())
    for row in range(SAMPLES):
        for column in range(SAMPLES):
            y, x = raster.height * row // SAMPLES, raster.width * column // SAMPLES
            window = Window(x, y, min(SIDE, raster.width - x), min(SIDE, raster.height - y))
            crc = zlib.crc32(raster.read(window=window), crc)
    return {**shape, "samples": f"{crc:08x}"}
