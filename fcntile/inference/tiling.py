"""The regular grid of tiles over a raster: pure integers.

One axis, a raster of `size` px, seen from tile `k`; tiles overlap by `overlap` px:

    |<------------ tile ------------>|
    start(k)                  |<------------ tile ------------>|
                              start(k + 1)
                              |<---->| overlap

At each inner side the outermost `guard` px of a tile weigh nothing, because there the net saw its
own zero padding. What is left of the overlap, `ramp` px, is the *junction* where the two tiles are
blended. With overlap <= tile / 2 at most two tiles meet along an axis, and 2 x 2 at a pixel.
"""

from dataclasses import dataclass

from fcntile.errors import OptionError


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis of a raster.

    Args:
        size: pixels of the raster, >= 1.
        tile: pixels of a tile, >= 1.
        overlap: pixels shared by two neighbours, 0 <= overlap <= tile / 2.
        guard: pixels of a tile's inner sides that weigh 0, 0 <= 2 * guard <= overlap.
    """

    size: int
    tile: int
    overlap: int
    guard: int = 0

    @property
    def stride(self) -> int:
        """Pixels from one tile's start to the next."""
        return self.tile - self.overlap

    @property
    def ramp(self) -> int:
        """Pixels over which two neighbours are blended."""
        return self.overlap - 2 * self.guard

    @property
    def count(self) -> int:
        """Number of tiles.

        >>> Axis(512, 512, 128).count, Axis(513, 512, 128).count, Axis(1, 512, 128).count
        (1, 2, 1)
        """
        return max(1, -(-(self.size - self.overlap) // self.stride))

    @property
    def padded(self) -> int:
        """Pixels that the tiles cover: `size`, completed to whole tiles."""
        return (self.count - 1) * self.stride + self.tile

    def start(self, k: int) -> int:
        """First pixel of tile `k`."""
        return k * self.stride

    def counted(self, k: int) -> tuple[int, int]:
        """First and one past the last raster pixel where tile `k` has weight."""
        first = self.start(k) + (self.guard if k else 0)
        is_last = k == self.count - 1
        return first, self.size if is_last else self.start(k) + self.tile - self.guard

    def finished(self, k: int) -> tuple[int, int]:
        """First and one past the last raster pixel that tile `k` completes.

        >>> axis = Axis(1000, 512, 128, guard=16)
        >>> [axis.finished(k) for k in range(axis.count)]
        [(0, 400), (400, 784), (784, 1000)]
        """
        first, stop = self.counted(k)
        return first, stop if k == self.count - 1 else self.counted(k + 1)[0]


@dataclass(frozen=True)
class Tiling:
    """Tiles over a raster: one axis of rows, one of columns.

    >>> tiling = Tiling.over(height=4096, width=8192, tile=512, overlap=128)
    >>> tiling.y.count, tiling.x.count
    (11, 21)
    """

    y: Axis
    x: Axis

    @classmethod
    def over(cls, *, height: int, width: int, tile: int, overlap: int, guard: int = 0) -> "Tiling":
        """Return square tiles over a raster of `height` x `width` px."""
        return cls(Axis(height, tile, overlap, guard), Axis(width, tile, overlap, guard))

    @property
    def count(self) -> int:
        """Number of tiles."""
        return self.y.count * self.x.count


def plan_tiling(
    height: int,
    width: int,
    tile: int,
    overlap: int | str,
    net_stride: int,
    halo: int | None,
    size: int | None = None,
) -> Tiling:
    """Return the grid that suits a raster and a net.

    A tile must start at a multiple of the net's total stride: elsewhere its pooling grid is out of
    step with its neighbour's, and the two give different logits for the same ground.

    Args:
        height: pixels of the raster.
        width: pixels of the raster.
        tile: side of a tile in pixels.
        overlap: pixels, or a share of the tile such as "25%".
        net_stride: the net's total stride in pixels.
        halo: the net's reach in pixels; None if there is none.
        size: the only side of a tile that the net takes; None if it takes any.

    Raises:
        OptionError: if tile and overlap do not suit each other and the net.
    """
    overlap = overlap_px(overlap, tile, net_stride)
    if size and tile != size:
        raise OptionError(f"the net takes tiles of {size} px only, not {tile}: use --tile {size}")
    if tile < 1 or tile % net_stride:
        raise OptionError(f"tile {tile} is not a multiple of the net's stride, {net_stride}")
    if not 0 <= overlap <= tile // 2:
        raise OptionError(f"overlap {overlap} is not between 0 and half the tile, {tile // 2}")
    if overlap % net_stride:
        raise OptionError(f"overlap {overlap} is not a multiple of the net's stride, {net_stride}")
    guard = default_guard(overlap, halo)
    return Tiling.over(height=height, width=width, tile=tile, overlap=overlap, guard=guard)


def default_guard(overlap: int, halo: int | None) -> int:
    """Return the guard for an overlap and the reach of the net, in pixels.

    With a guard of the net's halo no blended pixel knows of the tile's rim, and the mask is that of
    the untiled raster; so that is taken whenever the overlap has room for it. Otherwise a quarter:
    measured on the bundled model (docs/benchmarks.md, seams) it is never worse than none, and the
    better the larger the overlap.

    >>> default_guard(128, halo=16), default_guard(128, halo=224)
    (16, 32)
    """
    return halo if halo is not None and 2 * halo < overlap else overlap // 4


def overlap_px(overlap: int | str, tile: int, net_stride: int) -> int:
    """Return an overlap in pixels; a share such as "25%" is rounded to the net's stride.

    >>> overlap_px(128, 512, 32), overlap_px("25%", 512, 32), overlap_px("10%", 512, 32)
    (128, 128, 64)
    """
    if isinstance(overlap, int):
        return overlap
    try:
        share = float(overlap.removesuffix("%")) / 100
    except ValueError as error:
        raise OptionError(f"overlap {overlap!r} is neither pixels nor a share like 25%") from error
    return round(share * tile / net_stride) * net_stride
