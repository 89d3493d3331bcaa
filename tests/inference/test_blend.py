from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

from fcntile.errors import ModelError
from fcntile.inference.blend import Halves, blend, taper
from fcntile.inference.engine import Tile
from fcntile.inference.junction import join
from fcntile.inference.products import make_products
from fcntile.inference.stages import Clock
from fcntile.inference.tiling import Axis, Tiling

CPU = torch.device("cpu")


def tile_weights(axis, k):
    """Return the weights of tile `k` along an axis, by their definition."""
    i = np.arange(axis.ramp)
    up = 0.5 - 0.5 * np.cos(np.pi * (i + 0.5) / axis.ramp)
    weights = np.ones(axis.length(k))
    if k > 0:
        first = axis.start(k - 1) + axis.stride + axis.guard - axis.start(k)
        weights[:first] = 0
        weights[first : first + axis.ramp] = up
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
        here = (..., *(slice(i, i + n) for i, n in zip((y, x), w.shape, strict=True)))
        total[here] += w * tile.logits.numpy()
        weight[here] += w
    return total, weight


@st.composite
def tilings(draw):
    unit = draw(st.integers(1, 4))  # stride of the net
    tile = unit * draw(st.integers(1, 16))
    overlap = unit * draw(st.integers(0, tile // unit // 2))
    guard = draw(st.integers(0, overlap // 2))
    sizes = draw(st.tuples(st.integers(1, 100), st.integers(1, 100)))
    if draw(st.booleans()):
        cuts = draw(st.none() | st.tuples(*(st.integers(n, n + 20) for n in sizes)))
        axes = zip(sizes, cuts or (None, None), strict=True)
        return Tiling(*(Axis(n, tile, overlap, guard, cut=cut) for n, cut in axes))
    ends = [-(-n // unit) * unit for n in sizes]  # the last tile is moved back to end there
    return Tiling(
        *(
            Axis(n, tile, overlap, guard, end) if tile < end else Axis(n, end, 0, 0, end)
            for n, end in zip(sizes, ends, strict=True)
        )
    )


def blended(tiles, tiling, classes, window=None):
    """Return the positions in a window, the blocks of rows put together."""
    block = tiling.block(window)
    here = [t for t in tiles if t.row in block.rows and t.column in block.columns]
    # blending may write into a tile's logits, so it gets copies
    copies = [Tile(t.row, t.column, t.logits.clone(), t.wanted) for t in here]
    rows = blend(copies, tiling, block, make_products([], classes, "uint8"), CPU, Clock())
    return np.concatenate([mask[0] for (mask,) in (arrive() for arrive in rows)])


def random_tiles(tiling, classes):
    torch.manual_seed(0)
    return [
        Tile(row, column, torch.randn(classes, tiling.y.length(row), tiling.x.length(column)), None)
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

    mask = blended(tiles, tiling, classes)
    assert mask.shape == (height, width)
    best = np.sort(total, axis=0)[:, :height, :width]
    clear = best[-1] - best[-2] > 1e-5 if classes > 1 else np.ones((height, width), bool)
    assert (mask == total.argmax(0)[:height, :width])[clear].all()


@settings(deadline=None)
@given(tilings(), st.data())
def test_a_window_has_the_very_classes_that_it_has_in_the_whole(tiling, data):
    """Whatever tiles it needs: the result does not depend on where a run is cut."""
    tiles = random_tiles(tiling, 3)
    spans = []
    for size in (tiling.y.size, tiling.x.size):
        first = data.draw(st.integers(0, size - 1))
        spans.append((first, data.draw(st.integers(first + 1, size))))
    (top, bottom), (left, right) = spans
    part = blended(tiles, tiling, 3, Window.from_slices(*spans))
    assert np.array_equal(part, blended(tiles, tiling, 3)[top:bottom, left:right])


def halves_of(tiles, tiling, products, window):
    """Return what a window leaves of the junctions around it, and its rows put together."""
    block, halves = tiling.block(window), Halves()
    here = [t for t in tiles if t.row in block.rows and t.column in block.columns]
    copies = [
        Tile(t.row, t.column, None if t.logits is None else t.logits.clone(), t.wanted)
        for t in here
    ]
    arriving = blend(copies, tiling, block, products, CPU, Clock(), None, halves)
    rows = [arrive() for arrive in arriving]
    return halves, [np.concatenate(bands, axis=1) for bands in zip(*rows, strict=True)]


@settings(deadline=None)
@given(tilings(), st.data())
def test_windows_and_their_joined_halves_are_the_whole_to_the_bit(tiling, data):
    """One above, some below: no row of tiles is given to both. Without data, there is none."""
    choices = [k for k in range(1, tiling.y.count) if tiling.y.ramp]
    assume(choices)
    first, stop = tiling.y.junction(data.draw(st.sampled_from(choices)))
    places = st.integers(0, tiling.x.size)
    edges = sorted(data.draw(st.lists(places, min_size=2, max_size=4, unique=True)))
    columns, rows = (edges[0], edges[-1]), (stop, tiling.y.size)
    upper, whole = (Window.from_slices((0, n), columns) for n in (first, tiling.y.size))
    lower = [Window.from_slices(rows, span) for span in pairwise(edges)]
    blocks = [tiling.block(window).rows for window in (upper, lower[0], whole)]
    assert len(blocks[0]) + len(blocks[1]) == len(blocks[2])

    products = make_products(["logits"], 3, "float32")
    tiles = random_tiles(tiling, 3)
    ground = torch.rand(tiling.y.padded, tiling.x.padded) < data.draw(
        st.sampled_from([0.0, 0.5, 1.0])
    )
    ground[: data.draw(st.integers(0, tiling.y.size))] = data.draw(st.booleans())
    for i, tile in enumerate(tiles):
        window = tiling.y.start(tile.row), tiling.x.start(tile.column)
        y, x = (
            slice(start, start + n) for start, n in zip(window, tile.logits.shape[1:], strict=True)
        )
        valid = ground[y, x]
        tiles[i] = Tile(tile.row, tile.column, tile.logits if valid.any() else None, valid)
    above, *below = (halves_of(tiles, tiling, products, window) for window in (upper, *lower))
    joined = join(above[0].below, [halves.above for halves, _ in below], products, CPU)
    rows_below = [
        np.concatenate(bands, axis=2) for bands in zip(*(r for _, r in below), strict=True)
    ]
    expected = halves_of(tiles, tiling, products, whole)[1]
    for parts in zip(above[1], joined, rows_below, expected, strict=True):
        assert np.concatenate(parts[:3], axis=1).tobytes() == parts[3].tobytes()


@pytest.mark.parametrize("classes", [1, 255, 256, 300])
def test_where_there_is_no_data_is_the_largest_number(classes):
    tiling = Tiling.over(height=40, width=40, tile=32, overlap=8)
    valid = torch.rand(4, 32, 32) < 0.5
    tiles = [Tile(t.row, t.column, t.logits, valid[0]) for t in random_tiles(tiling, classes)]
    products = make_products([], classes, "uint8")
    ((first,),) = next(blend(tiles, tiling, tiling.block(), products, CPU, Clock()))()
    assert first.dtype == (np.uint8 if classes <= 255 else np.uint16)
    nodata = np.iinfo(first.dtype).max
    assert np.array_equal(first[:24, :24] == nodata, ~valid[0, :24, :24].numpy())


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
    products = make_products([], 2, "uint8")
    rows = blend(tiles, tiling, tiling.block(), products, CPU, Clock())
    above, below = rows
    above()
    with pytest.raises(ModelError, match="rows 24 to 39"):
        below()
