import numpy as np
import pytest

from fcntile.raster.outputs import class_values


@pytest.mark.parametrize(
    ("values", "dtype"),
    [((42, 11, 21), np.uint8), ((0, 1, 254), np.uint8), ((0, 255, 7), np.uint16)],
)
@pytest.mark.parametrize("position_dtype", [np.uint8, np.uint16])
def test_positions_become_the_values_of_their_classes(values, dtype, position_dtype):
    none = np.iinfo(position_dtype).max
    positions = np.array([[0, 1, none], [2, none, 2]], position_dtype)
    mask = class_values(positions, values)
    a, b, c = values
    nodata = np.iinfo(dtype).max
    assert mask.dtype == dtype
    assert mask.tolist() == [[a, b, nodata], [c, nodata, c]]


@pytest.mark.parametrize("classes", [2, 255, 256])
def test_positions_that_are_the_values_are_not_copied(classes):
    positions = np.zeros((2, 3), np.uint8 if classes <= 255 else np.uint16)
    assert class_values(positions, range(classes)) is positions
