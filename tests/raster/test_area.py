"""The window that bounds mean."""

from fractions import Fraction

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.io import MemoryFile

from fcntile.errors import InputError
from fcntile.raster.area import bounds_window

LEFT, TOP, PIXEL = Fraction(5000003, 10), Fraction(45000007, 10), Fraction(1, 10)
SIZE = 20  # px, high and wide


@pytest.fixture(scope="module", params=[-1, 1], ids=["north-up", "south-up"])
def raster(request):
    """Return a raster of 0.1 m, whose places are no binary numbers, and the sign of its rows."""
    grid = rasterio.Affine(*map(float, (PIXEL, 0, LEFT, 0, request.param * PIXEL, TOP)))
    shape = {"driver": "GTiff", "height": SIZE, "width": SIZE, "count": 1, "dtype": "uint8"}
    with MemoryFile() as memory:
        with memory.open(**shape, crs="EPSG:32612", transform=grid):
            pass
        with memory.open() as opened:
            yield opened, request.param


PLACE = st.integers(-8, 4 * SIZE + 8)  # quarters of a pixel
ENDS = st.tuples(PLACE, PLACE).filter(lambda ends: ends[0] < ends[1])


def centres_between(low, high):
    """Return pixels whose centres lie within two places in quarters of a pixel, or on them."""
    return [i for i in range(SIZE) if low <= 4 * i + 2 <= high]


@settings(max_examples=300, deadline=None)
@given(columns=ENDS, rows=ENDS)
def test_bounds_are_the_pixels_whose_centres_lie_within_or_on_them(raster, columns, rows):
    opened, sign = raster
    x = [float(LEFT + PIXEL * c / 4) for c in columns]
    y = sorted(float(TOP + sign * PIXEL * r / 4) for r in rows)
    wanted = centres_between(*rows), centres_between(*columns)
    if not all(wanted):
        with pytest.raises(InputError, match="hold no pixel"):
            bounds_window((x[0], y[0], x[1], y[1]), opened)
        return
    window = bounds_window((x[0], y[0], x[1], y[1]), opened)
    found = [list(range(*ends)) for ends in window.toranges()]
    np.testing.assert_equal(found, list(wanted))
