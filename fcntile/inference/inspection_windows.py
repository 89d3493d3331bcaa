"""Which windows of a raster to look at closely, and what overlap follows: integers only."""

from collections.abc import Callable

from rasterio.windows import Window

from fcntile.errors import OptionError
from fcntile.models.registry import Net

SPREAD = 256  # px around the middle in which logits are looked at
MAX_SIDE = 1024  # px of a window in which gradients are kept
MAX_BYTES = 4e9  # of the layers' outputs that gradients need


def choose_window(
    given: tuple[int, int, int, int] | None, height: int, width: int, tile: int, net: Net
) -> Window:
    """Return the window whose maps are shown.

    Args:
        given: column, row, width and height in px; by default a tile in the middle, which goes on
            beyond the right or bottom rim of a raster that is smaller.
        height: of the raster in px.
        width: of the raster in px.
        tile: side in px of a tile that suits the model.
        net: that will see it.

    Raises:
        OptionError: if it is not inside the raster, or the net does not take its size.
    """
    if given is None:
        side = net.size or -(-tile // net.stride) * net.stride
        left, top = (_place(size // 2, side, size) for size in (width, height))
        return Window(left, top, side, side)
    window = Window(*given)
    text = "--window " + ",".join(map(str, given))
    left, top, columns, rows = given
    inside = left >= 0 and top >= 0 and left + columns <= width and top + rows <= height
    if not inside or min(rows, columns) < 1:
        raise OptionError(f"{text} is not inside the raster, which is {width} px x {height} px")
    if net.size and (rows, columns) != (net.size, net.size):
        raise OptionError(f"{text}: the net takes {net.size} px x {net.size} px only")
    if rows % net.stride or columns % net.stride:
        fitting = " x ".join(str(max(1, n // net.stride) * net.stride) for n in (columns, rows))
        raise OptionError(
            f"{text}: the net takes multiples of its stride, {net.stride} px, such as {fitting}"
        )
    return window


def field_window(
    shown: Window,
    height: int,
    width: int,
    tile: int,
    net: Net,
    memory: Callable[[int, int], int],
) -> Window:
    """Return the window in which to measure the receptive field, around the middle of another.

    It is larger than the theoretical field, if memory allows. If it is also larger than the raster,
    it goes on beyond the rim on both sides.

    Args:
        shown: the other window.
        height: of the raster in px.
        width: of the raster in px.
        tile: side in px of a tile that suits the model; what a net gives that is bound to its tile
            is measured in that.
        net: that will see it.
        memory: returns the bytes of all layers' outputs for a height and width.
    """
    stride = net.stride
    side = min(-(-(net.receptive_field + SPREAD) // stride) * stride, MAX_SIDE // stride * stride)
    fixed = net.size or (tile if net.is_tile_bound else None)
    rows = columns = fixed or side
    while not fixed and memory(rows, columns) > MAX_BYTES and rows > stride:
        rows = columns = max(stride, rows * 7 // 8 // stride * stride)
    row, column = shown.row_off + shown.height // 2, shown.col_off + shown.width // 2
    top = _place(row, rows, height) if rows <= height else (height - rows) // 2
    left = _place(column, columns, width) if columns <= width else (width - columns) // 2
    return Window(left, top, columns, rows)


def _place(middle: int, side: int, size: int) -> int:
    """Return where a side around a pixel starts, moved into the raster as far as it fits."""
    return max(0, min(middle - side // 2, size - side))


def recommend_overlap(radius: int, stride: int, tile: int | None = None) -> int:
    """Return the overlap in px that keeps what a net looks at inside one of two tiles.

    A pixel in the middle of an overlap of twice the radius has it on both sides. It is rounded up
    to the stride.

    Args:
        radius: px that the net looks far, in fact.
        stride: of the net in px.
        tile: side of a tile in px, of which half is the most; None for any.

    >>> recommend_overlap(50, 32, 512), recommend_overlap(168, 32, 512), recommend_overlap(168, 32)
    (128, 256, 352)
    """
    steps = -(-2 * radius // stride)
    return stride * (steps if tile is None else min(steps, tile // 2 // stride))
