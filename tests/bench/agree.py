"""How many labels two masks of a raster share: `python agree.py MASK REFERENCE [--median]`.

Prints the share everywhere, and where no tiles meet: there every program must give the same labels,
or it does another job than the one whose time is compared. With --median, REFERENCE is smoothed as
GeoDeep smooths its masks.
"""

import json
import sys

import numpy as np
import rasterio
from scipy.ndimage import median_filter

TILE, STRIDE = 512, 384


def alone(size):
    """Return which rows (or columns) of a raster lie in one tile only."""
    covered = np.zeros(size, int)
    for start in range(0, size - TILE + 1, STRIDE):
        covered[start : start + TILE] += 1
    return covered == 1


def main(mask, reference, *options):
    mask, reference = (rasterio.open(path).read(1) for path in (mask, reference))
    if "--median" in options:
        reference = median_filter(reference, 5)
    same = mask == reference
    shares = {"everywhere": same.mean(), "alone": same[np.ix_(*map(alone, same.shape))].mean()}
    counts = np.bincount(reference.ravel())
    print(json.dumps({**shares, "largest_class": counts.max() / counts.sum()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
