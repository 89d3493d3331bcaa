"""Write the raster that the benchmarks run on: an orthophoto of any size, always the same one.

    python rasters.py OUTPUT WIDTH HEIGHT [EMPTY]

Mirrored copies of the demo's orthophoto under light that changes from place to place, so that no
two copies are alike. A smaller raster is the upper left corner of a larger one. The lower EMPTY
share is without data.
"""

import sys
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

DEMO = Path(__file__).parents[2] / "docs/demo/philippines_1.tif"
BLOCK = 512
LIGHT = 1024  # px between places whose light is drawn


def mirrored(width):
    """Return a strip (3, 2048, width) that can be repeated downwards, and the demo's place."""
    with rasterio.open(DEMO) as demo:
        pixels = demo.read()
        place = {"crs": demo.crs, "transform": demo.transform}
    cell = np.concatenate([pixels, pixels[:, ::-1]], 1)
    cell = np.concatenate([cell, cell[:, :, ::-1]], 2)
    return np.tile(cell, (1, 1, -(-width // cell.shape[2])))[:, :, :width], place


def light(y, height, width):
    """Return factors (height, width) of 0.6 to 1.2 that change smoothly, for rows from y on."""
    grid = np.random.default_rng(0).uniform(0.6, 1.2, (128, 128)).astype(np.float32)
    rows, columns = (
        (np.arange(n, dtype=np.float32) + o) / LIGHT for n, o in ((height, y), (width, 0))
    )
    at = np.arange(128)
    lines = [np.interp(columns, at, line) for line in grid[int(rows[0]) :][:3]]
    across = np.array(lines, np.float32)
    share = (rows - int(rows[0]))[:, None].astype(np.float32)
    upper = np.floor(share).astype(int)[:, 0]
    share -= upper[:, None]
    return across[upper] * (1 - share) + across[upper + 1] * share


def write(path, width, height, empty=0.0):
    strip, place = mirrored(width)
    full = round(height * (1 - empty) / BLOCK) * BLOCK if empty else height
    options = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate"}
    if empty:
        options |= {"nodata": 0, "sparse_ok": True}
    size = {"width": width, "height": height, "count": 3, "dtype": "uint8"}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        num_threads="all_cpus",
        bigtiff="if_safer",
        **size,
        **place,
        **options,
    ) as raster:
        for y in range(0, full, BLOCK):
            rows = strip[:, y % 2048 : y % 2048 + min(BLOCK, full - y)]
            rows = np.clip(rows * light(y, rows.shape[1], width), 1, 255).astype(np.uint8)
            raster.write(rows, window=Window(0, y, width, rows.shape[1]))


if __name__ == "__main__":
    write(sys.argv[1], *map(int, sys.argv[2:4]), *map(float, sys.argv[4:]))
