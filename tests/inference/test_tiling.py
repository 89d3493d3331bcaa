import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcntile.errors import OptionError
from fcntile.inference.grid import overlap_px, plan_tiling
from fcntile.inference.tiling import Axis


@st.composite
def axes(draw):
    tile = draw(st.integers(1, 64))
    overlap = draw(st.integers(0, tile // 2))
    guard = draw(st.integers(0, overlap // 2))
    size = draw(st.integers(1, 300))
    cut = draw(st.none() | st.integers(size, size + 100))
    return Axis(size, tile, overlap, guard, cut=cut)


@given(axes())
def test_every_pixel_is_finished_once(axis):
    finished = np.zeros(axis.size, int)
    for k in range(axis.count):
        first, stop = axis.finished(k)
        finished[first:stop] += 1
    assert (finished == 1).all()


@given(axes())
def test_at_most_two_tiles_meet_and_all_pixels_have_one(axis):
    counted = np.zeros(axis.size, int)
    for k in range(axis.count):
        first, stop = axis.counted(k)
        assert axis.start(k) <= first < stop <= axis.stop(k) <= axis.start(k) + axis.tile
        counted[first:stop] += 1
    assert counted.min() == 1
    assert counted.max() <= 2


@given(axes())
def test_the_last_tile_is_needed(axis):
    assert axis.padded >= axis.size
    assert axis.count == 1 or axis.start(axis.count - 1) + axis.overlap < axis.size


@given(size=st.integers(1, 3000), halo=st.integers(0, 500), stride=st.sampled_from([1, 4, 32]))
def test_the_last_tile_ends_in_step_with_the_net_and_beyond_its_reach(size, halo, stride):
    axis = plan_tiling(size, size, 512, 128, stride, halo, whole=False).x
    assert axis.length(axis.count - 1) % stride == 0
    whole = plan_tiling(size, size, 512, 128, stride, halo).x
    assert axis.padded == whole.padded or size + halo <= axis.padded < size + halo + 2 * stride
    assert axis.padded <= whole.padded


@pytest.mark.parametrize(
    ("tile", "overlap", "words"),
    [
        (500, 128, "tile 500 is not a multiple of the net's stride, 32"),
        (512, 100, "overlap 100 is not a multiple of the net's stride, 32"),
        (512, 288, "overlap 288 is not between 0 and half the tile, 256"),
        (512, "many", "neither pixels nor a share"),
    ],
)
def test_a_grid_out_of_step_with_the_net_is_refused(tile, overlap, words):
    with pytest.raises(OptionError, match=words):
        plan_tiling(1000, 1000, tile, overlap, net_stride=32, halo=224)


def test_a_share_of_the_tile_is_rounded_to_the_stride_of_the_net():
    assert overlap_px("25%", 512, 32) == 128
    assert overlap_px("12.5%", 512, 32) == 64
    assert overlap_px("20%", 512, 32) == 96
