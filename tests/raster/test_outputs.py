from pathlib import Path

import numpy as np
import pytest

from fcntile.errors import OutputError
from fcntile.raster.outputs import check_output, class_values


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


def test_outputs_that_cannot_be_written_are_refused_before_any_work(tmp_path):
    with pytest.raises(OutputError, match="is a directory"):
        check_output(tmp_path, overwrite=True)
    with pytest.raises(OutputError, match="does not exist"):
        check_output(tmp_path / "no" / "mask.tif", overwrite=False)
    for nameless in (Path(), Path("/")):
        with pytest.raises(OutputError, match="is no name for a file"):
            check_output(nameless, overwrite=True)
    with pytest.raises(OutputError, match="File name too long"):  # with what is beside it
        check_output(tmp_path / ("m" * 250), overwrite=True)
    (tmp_path / "mask.tif").touch()
    with pytest.raises(OutputError, match="--overwrite"):
        check_output(tmp_path / "mask.tif", overwrite=False)
    check_output(tmp_path / "mask.tif", overwrite=True)
