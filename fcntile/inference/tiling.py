"""The grid of tiles over a raster: pure integers.

One axis, a raster of `size` px, seen from tile `k`; tiles overlap by `overlap` px:

    |<------------ tile ------------>|
    start(k)                  |<------------ tile ------------>|
                              start(k + 1)
                              |<---->| overlap

At each inner side the outermost `guard` px of a tile weigh nothing, because there the net saw its
own zero padding. What is left of the overlap, `ramp` px, is the *junction* where the two tiles are
blended; a ramp of 0 px crops them there. With overlap <= tile / 2 at most two tiles meet along an
axis, and 2 x 2 at a pixel.

A grid goes on beyond the rim by reflection. It ends with a whole tile where the step puts it, cut
off where nothing reaches the raster any more; or, for `exact` stitching, at the first multiple of
the net's stride: then the net pads with zeros where it would pad the untiled raster, and the last
tile is moved back to end there.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property

from rasterio.windows import Window


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis of a raster.

    Args:
        size: pixels of the raster, >= 1.
        tile: pixels of a tile, >= 1.
        overlap: pixels shared by two neighbours, 0 <= overlap <= tile / 2; < tile without a ramp.
        guard: pixels of a tile's inner sides that weigh 0, 0 <= 2 * guard <= overlap.
        end: where the last tile ends, >= max(size, tile); by default where whole steps put it.
        cut: where the last tile is cut off, >= size; by default nowhere.
    """

    size: int
    tile: int
    overlap: int
    guard: int = 0
    end: int | None = None
    cut: int | None = None

    @property
    def stride(self) -> int:
        """Pixels from one tile's start to the next."""
        return self.tile - self.overlap

    @property
    def ramp(self) -> int:
        """Pixels over which two neighbours are blended."""
        return self.overlap - 2 * self.guard

    @cached_property
    def count(self) -> int:
        """Number of tiles.

        >>> Axis(512, 512, 128).count, Axis(513, 512, 128).count, Axis(1, 512, 128).count
        (1, 2, 1)
        """
        return max(1, -(-((self.end or self.size) - self.overlap) // self.stride))

    @property
    def padded(self) -> int:
        """Pixels that the tiles cover: `size`, completed by reflection."""
        return self.stop(self.count - 1)

    def start(self, k: int) -> int:
        """First pixel of tile `k`."""
        first = k * self.stride
        return min(first, self.end - self.tile) if self.end else first

    def stop(self, k: int) -> int:
        """One past the last pixel of tile `k`.

        >>> Axis(600, 512, 128).stop(1), Axis(600, 512, 128, cut=640).stop(1)
        (896, 640)
        """
        stop = self.start(k) + self.tile
        return min(stop, self.cut) if self.cut else stop

    def length(self, k: int) -> int:
        """Pixels of tile `k`; the first is the longest."""
        return self.stop(k) - self.start(k)

    def counted(self, k: int) -> tuple[int, int]:
        """First and one past the last raster pixel where tile `k` has weight."""
        first = self.start(k - 1) + self.stride + self.guard if k else 0
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

    def junction(self, k: int) -> tuple[int, int]:
        """First and one past the last raster pixel that tiles `k - 1` and `k` share; k > 0.

        >>> Axis(1000, 512, 128, guard=16).junction(1)
        (400, 496)
        """
        return self.counted(k)[0], self.counted(k - 1)[1]

    def needed(self, first: int, stop: int) -> range:
        """Tiles that have weight in an interval of pixels.

        >>> Axis(1000, 512, 128, guard=16).needed(384, 512)
        range(0, 2)
        """
        tiles = range(self.count)
        return range(
            bisect_right(tiles, first, key=lambda k: self.counted(k)[1]),
            bisect_left(tiles, stop, key=lambda k: self.counted(k)[0]),
        )

    def span(self, tiles: range) -> tuple[int, int]:
        """First and one past the last pixel of neighbouring tiles.

        >>> Axis(1000, 512, 128).span(range(1, 3))
        (384, 1280)
        """
        return self.start(tiles[0]), self.stop(tiles[-1])


@dataclass(frozen=True)
class Block:
    """Neighbouring tiles, and the window that they complete.

    Args:
        window: pixels wanted.
        rows: of tiles, those that have weight in the window.
        columns: likewise.
    """

    window: Window
    rows: range
    columns: range

    @property
    def count(self) -> int:
        """Number of tiles."""
        return len(self.rows) * len(self.columns)


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

    @property
    def tile(self) -> int:
        """Side of a tile; along an axis on which the raster is smaller it may be cut."""
        return max(self.y.tile, self.x.tile)

    @property
    def overlap(self) -> int:
        """Pixels shared by two neighbours, along the axis that has some."""
        return max(self.y.overlap, self.x.overlap)

    @property
    def guard(self) -> int:
        """Pixels of a tile's inner sides that weigh 0, along the axis that has some."""
        return max(self.y.guard, self.x.guard)

    @property
    def compute_factor(self) -> float:
        """Net pixels per raster pixel, away from the rim: (tile / stride)^2.

        >>> round(Tiling.over(height=4096, width=4096, tile=512, overlap=128).compute_factor, 2)
        1.78
        """
        return self.x.tile * self.y.tile / (self.x.stride * self.y.stride)

    def window(self, row: int, column: int) -> Window:
        """Return the pixels of a tile that the raster has."""
        return Window.from_slices(
            *(
                (axis.start(k), min(axis.stop(k), axis.size))
                for axis, k in ((self.y, row), (self.x, column))
            )
        )

    def block(self, window: Window | None = None) -> Block:
        """Return the tiles that complete a window of the raster, by default all of it."""
        window = window or Window(0, 0, self.x.size, self.y.size)
        (top, bottom), (left, right) = window.toranges()
        return Block(window, self.y.needed(top, bottom), self.x.needed(left, right))
