import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fcntile.errors import ModelError
from fcntile.inference.blend import best_class, blend, class_values, taper
from fcntile.inference.engine import Tile
from fcntile.inference.stages import Clock
from fcntile.inference.tiling import Tiling

CPU = torch.device("cpu")


def tile_weights(axis, k):
    """Return the weights of tile `k` along an axis, by their definition."""
    i = np.arange(axis.ramp)
    up = 0.5 - 0.5 * np.cos(np.pi * (i + 0.5) / axis.ramp)
    weights = np.ones(axis.tile)
    if k > 0:
        weights[: axis.guard] = 0
        weights[axis.guard : axis.guard + axis.ramp] = up
    if k < axis.count - 1:
        weights[axis.tile - axis.guard :] = 0
        weights[axis.tile - axis.guard - axis.ramp : axis.tile - axis.guard] = up[::-1]
    return weights


def blended_in_memory(tiles, tiling, classes):
    """Return summed logits and summed weights of a raster, padded, in float64."""
    total = np.zeros((classes, tiling.y.padded, tiling.x.padded))
    weight = np.zeros((tiling.y.padded, tiling.x.padded))
    for tile in tiles:
        w = np.outer(tile_weights(tiling.y, tile.row), tile_weights(tiling.x, tile.column))
        y, x = tiling.y.start(tile.row), tiling.x.start(tile.column)
        here = (..., slice(y, y + tiling.y.tile), slice(x, x + tiling.x.tile))
        total[here] += w * tile.logits.numpy()
        weight[here] += w
    return total, weight


@st.composite
def tilings(draw):
    tile = draw(st.integers(1, 32))
    overlap = draw(st.integers(0, tile // 2))
    return Tiling.over(
        height=draw(st.integers(1, 100)),
        width=draw(st.integers(1, 100)),
        tile=tile,
        overlap=overlap,
        guard=draw(st.integers(0, overlap // 2)),
    )


def random_tiles(tiling, classes):
    torch.manual_seed(0)
    shape = classes, tiling.y.tile, tiling.x.tile
    return [
        Tile(row, column, torch.randn(shape), None)
        for row in range(tiling.y.count)
        for column in range(tiling.x.count)
    ]


@settings(deadline=None)
@given(tilings(), st.integers(1, 4))
def test_blending_equals_the_weighted_sum_held_in_memory(tiling, classes):
    tiles = random_tiles(tiling, classes)
    total, weight = blended_in_memory(tiles, tiling, classes)
    height, width = tiling.y.size, tiling.x.size
    assert np.abs(weight[:height, :width] - 1).max() < 1e-6

    # blending may write into a tile's logits, so it gets copies
    copies = [Tile(t.row, t.column, t.logits.clone(), None) for t in tiles]
    mask = np.concatenate(list(blend(copies, tiling, classes, CPU, Clock())))
    assert mask.shape == (height, width)
    best = np.sort(total, axis=0)[:, :height, :width]
    clear = best[-1] - best[-2] > 1e-5 if classes > 1 else np.ones((height, width), bool)
    assert (mask == total.argmax(0)[:height, :width])[clear].all()


@pytest.mark.parametrize("classes", [1, 2, 6, 254, 255, 256, 300, 32768])
def test_the_best_class_is_that_of_argmax(classes):
    logits = torch.randint(0, 9, (classes, 20, 30)).float()  # with many ties
    logits[-1, :10] = 9  # where the last class wins
    best, positions = best_class(logits)
    assert torch.equal(best, logits.amax(0))
    assert np.array_equal(positions.numpy(), logits.numpy().argmax(0))
    assert positions.dtype == (torch.uint8 if classes <= 255 else torch.int16)


@pytest.mark.parametrize("classes", [1, 255, 256, 300])
def test_where_there_is_no_data_is_the_largest_number(classes):
    tiling = Tiling.over(height=40, width=40, tile=32, overlap=8)
    valid = torch.rand(4, 32, 32) < 0.5
    tiles = [Tile(t.row, t.column, t.logits, valid[0]) for t in random_tiles(tiling, classes)]
    first = next(blend(tiles, tiling, classes, CPU, Clock()))
    assert first.dtype == (np.uint8 if classes <= 255 else np.uint16)
    nodata = np.iinfo(first.dtype).max
    assert np.array_equal(first[:24, :24] == nodata, ~valid[0, :24, :24].numpy())


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


@pytest.mark.parametrize("ramp", [0, 1, 2, 63, 128])
def test_the_two_tapers_of_a_junction_sum_to_one(ramp):
    up = taper(ramp)
    assert torch.allclose(up + up.flip(0), torch.ones(ramp), atol=1e-6)
    assert (up.diff() > 0).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_undefined_logits_are_an_error_not_a_class(value):
    tiling = Tiling.over(height=40, width=40, tile=32, overlap=8)
    tiles = random_tiles(tiling, 2)
    tiles[2].logits[1, 10, 3] = value
    rows = blend(tiles, tiling, 2, CPU, Clock())
    next(rows)
    with pytest.raises(ModelError, match="rows 24 to 39"):
        next(rows)
