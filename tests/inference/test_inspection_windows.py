import pytest
from rasterio.windows import Window

from fcntile.errors import OptionError
from fcntile.inference.inspection_windows import MAX_BYTES, choose_window, field_window
from fcntile.models import create_model


def net(name="fcn8s", **options):
    return create_model(name, 1, 2, **{"width": 1, "head": 1, **options})


def test_without_a_wish_it_is_a_tile_in_the_middle():
    assert choose_window(None, 1000, 2000, 512, net()) == Window(744, 244, 512, 512)
    assert choose_window(None, 100, 2000, 512, net()) == Window(744, 0, 512, 512)
    assert choose_window(None, 1000, 2000, 500, net()) == Window(744, 244, 512, 512)
    thread = net("mirror-vgg-thread", size=64)
    assert choose_window(None, 1000, 2000, 512, thread) == Window(968, 468, 64, 64)


def test_a_wish_is_taken_as_it_is():
    assert choose_window((7, 3, 64, 32), 100, 80, 512, net()) == Window(7, 3, 64, 32)
    assert choose_window((48, 68, 32, 32), 100, 80, 512, net()) == Window(48, 68, 32, 32)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((49, 0, 32, 32), "not inside the raster, which is 80 px x 100 px"),
        ((0, 69, 32, 32), "--window 0,69,32,32 is not inside"),
        ((-1, 0, 32, 32), "not inside"),
        ((0, 0, 0, 32), "not inside"),
        ((0, 0, 70, 33), r"multiples of its stride, 32 px, such as 64 x 32"),
    ],
)
def test_what_cannot_be_shown_is_refused(given, words):
    with pytest.raises(OptionError, match=words):
        choose_window(given, 100, 80, 512, net())


def test_a_net_of_one_size_takes_no_other():
    with pytest.raises(OptionError, match="takes 64 px x 64 px only"):
        choose_window((0, 0, 32, 32), 100, 80, 512, net("mirror-vgg-thread", size=64))


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (5000, 5000, Window(2132, 2132, 736, 736)),  # 468 of the field, 256 to spread
        (600, 5000, Window(2132, -68, 736, 736)),  # by reflection above and below
        (100, 736, Window(0, -318, 736, 736)),
    ],
)
def test_the_field_is_measured_where_it_has_room(height, width, expected):
    shown = Window(width // 2 - 16, height // 2 - 16, 32, 32)
    assert field_window(shown, height, width, 512, net(), lambda *size: 0) == expected


def test_near_the_rim_the_window_moves_inwards():
    window = field_window(Window(4990, 0, 10, 10), 5000, 5000, 512, net(), lambda *size: 0)
    assert window == Window(5000 - 736, 0, 736, 736)


def test_memory_and_a_largest_side_bound_the_window():
    def memory(rows, columns):
        return 20_000 * rows * columns

    window = field_window(Window(2000, 2000, 512, 512), 5000, 5000, 512, net(), memory)
    assert memory(window.height, window.width) <= MAX_BYTES
    assert window.width % 32 == 0
    assert window.width >= 352
    wide = create_model("fc-densenet103", 1, 2, growth=1)
    window = field_window(Window(0, 0, 512, 512), 5000, 5000, 512, wide, lambda *size: 0)
    assert (window.height, window.width) == (1024, 1024)


def test_a_net_bound_to_its_tile_is_measured_in_one():
    bound = create_model("deconvnet", 1, 2, width=1, head=1)
    window = field_window(Window(2000, 2000, 512, 512), 5000, 5000, 224, bound, lambda *size: 0)
    assert window == Window(2144, 2144, 224, 224)
