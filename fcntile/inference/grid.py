"""Which grid suits a raster and a net: overlap, guard, and where the last tiles end."""

from fcntile.errors import OptionError
from fcntile.inference.tiling import Axis, Tiling


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
    if not 0 <= share <= 1:
        raise OptionError(f"overlap {share:.0%} of a tile is not from 0 to 100%")
    return round(share * tile / net_stride) * net_stride


def default_guard(overlap: int, halo: int | None) -> int:
    """Return the guard for an overlap and the reach of the net, in pixels.

    With a guard of the net's halo no blended pixel knows of the tile's rim, and the mask is that of
    the untiled raster; so that is taken whenever the overlap has room for it. Otherwise, by what
    was measured (docs/seams.md): a narrow one while the overlap is short of the halo, so that both
    tiles count; beyond that, a pixel that lies deeper than 9/16 of the halo in one tile takes that
    tile's answer alone.

    >>> default_guard(128, halo=16), default_guard(128, halo=224), default_guard(256, halo=224)
    (16, 10, 96)
    """
    if halo is None:
        return overlap // 12
    if 2 * halo <= overlap:
        return halo
    return min(max(overlap // 12, overlap - 9 * halo // 16), 3 * overlap // 8)


def _off_stride(what: str, px: int, net_stride: int) -> str:
    """Return what is wrong with a tile or overlap, and the nearest ones that are right."""
    below = max(px, 0) // net_stride * net_stride
    near = f"{below} or {below + net_stride}" if below else str(net_stride)
    return f"{what} {px} is not a multiple of the net's stride, {net_stride}: use {near}"


def plan_tiling(
    height: int,
    width: int,
    tile: int,
    overlap: int | str,
    net_stride: int,
    halo: int | None,
    size: int | None = None,
    stitch: str = "cosine",
    *,
    whole: bool = True,
) -> Tiling:
    """Return the grid that suits a raster and a net.

    A tile must start at a multiple of the net's total stride: elsewhere its pooling grid is out of
    step with its neighbour's, and the two give different logits for the same ground.

    Args:
        height: pixels of the raster.
        width: pixels of the raster.
        tile: side of a tile in pixels.
        overlap: pixels, or a share of the tile such as "25%"; for exact stitching `exact_overlap`.
        net_stride: the net's total stride in pixels.
        halo: the net's reach in pixels; None if there is none.
        size: the only side of a tile that the net takes; None if it takes any.
        stitch: "cosine", "exact" or "crop".
        whole: whether all tiles have one shape, also those that go on far beyond the rim; otherwise
            they end where the net no longer reaches the raster, which is less work.

    Raises:
        OptionError: if tile and overlap do not suit each other and the net.
    """
    overlap = overlap_px(overlap, tile, net_stride)
    most = tile - net_stride if stitch == "exact" else tile // 2
    if size and tile != size:
        raise OptionError(f"the net takes tiles of {size} px only, not {tile}: use --tile {size}")
    if tile < 1 or tile % net_stride:
        raise OptionError(_off_stride("tile", tile, net_stride))
    if stitch == "exact" and overlap > most:
        raise OptionError(
            f"tile {tile} is too small for exact stitching: the net sees {overlap // 2} px on each "
            f"side of a pixel, so use --tile {overlap + net_stride} or more, or --tile auto"
        )
    if not 0 <= overlap <= most:
        raise OptionError(f"overlap {overlap} is not between 0 and half the tile, {most}")
    if overlap % net_stride:
        raise OptionError(_off_stride("overlap", overlap, net_stride))
    if stitch == "exact":
        return Tiling(*(_exact_axis(n, tile, overlap, net_stride) for n in (height, width)))
    guard = overlap // 2 if stitch == "crop" else default_guard(overlap, halo)
    beyond = None if whole or halo is None else _steps(halo, net_stride)
    return Tiling(
        *(
            Axis(
                n,
                tile,
                overlap,
                guard,
                cut=None if beyond is None else _steps(n, net_stride) + beyond,
            )
            for n in (height, width)
        )
    )


def enough_overlap(overlap: int, halo: int | None) -> int:
    """Return an overlap, or twice the net's halo where that is less.

    With twice the halo a tile has all that the net sees of every pixel; what overlaps beyond that
    would be inferred again for the same logits.

    >>> enough_overlap(128, halo=16), enough_overlap(128, halo=224), enough_overlap(128, None)
    (32, 128, 128)
    """
    return overlap if halo is None else min(overlap, 2 * halo)


def _steps(pixels: int, net_stride: int) -> int:
    """Return pixels rounded up to the net's stride."""
    return -(-pixels // net_stride) * net_stride


def _exact_axis(size: int, tile: int, overlap: int, net_stride: int) -> Axis:
    """Return tiles that end where the net's own padding of the untiled raster begins."""
    end = _steps(size, net_stride)
    if tile >= end:
        return Axis(size, end, 0, 0, end)
    return Axis(size, tile, overlap, overlap // 2, end)


def exact_overlap(halo: int | None) -> int:
    """Return the overlap at which tiles, cropped by the net's reach, are the untiled raster.

    Majurski and Bajcsy (*Exact Tile-Based Segmentation Inference for Images Larger than GPU
    Memory*, 2021, doi 10.6028/jres.126.009) prove it for grids in step with the net's stride.

    Raises:
        OptionError: if the net has no such reach.
    """
    if halo is None:
        raise OptionError(
            "the net has no exact stitching: it takes tiles of one size only, in which every pixel "
            "depends on all others; use --stitch cosine"
        )
    return 2 * halo
