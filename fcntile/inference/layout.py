"""Which tiles, and how many columns at a time: what the net needs and the memory allows."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import rasterio
import torch

from fcntile.errors import NOTE, OptionError
from fcntile.inference.devices import Plan
from fcntile.inference.grid import enough_overlap, exact_overlap, plan_tiling
from fcntile.inference.memory import (
    SWATH,
    TILES,
    Budget,
    Need,
    choose_columns,
    default_bound,
    fit_device,
    largest_tile,
)
from fcntile.inference.products import Product
from fcntile.inference.tiling import Tiling
from fcntile.models.model_file import Model

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """How a raster is gone through.

    Args:
        tiling: the grid.
        plan: where and how the net runs.
        columns: of a swath, in px.
        budget: what memory a grid takes.
    """

    tiling: Tiling
    plan: Plan
    columns: int
    budget: Budget

    def __str__(self) -> str:
        plan, tiling = self.plan, self.tiling
        return (
            f"{plan.device} in {str(plan.precision).removeprefix('torch.')}, {plan.threads} "
            f"thread(s), {tiling.y.count} x {tiling.x.count} tiles of {tiling.tile} px, overlap "
            f"{tiling.overlap} px, guard {tiling.guard} px"
        )

    @property
    def need(self) -> Need:
        """Memory that this takes."""
        return self.budget.need(self.tiling, self.plan)


def plan_layout(
    model: Model,
    raster: rasterio.DatasetReader,
    bands: Sequence[int],
    products: Sequence[Product],
    plan: Plan,
    *,
    stitch: str = "cosine",
    tile: int | str | None = None,
    overlap: int | str | None = None,
    earlier: Mapping[str, Any] | None = None,
    bound: float | None = None,
    is_asked: bool = False,
    width: int | None = None,
    fixed_batch: bool = False,
    shares: bool = False,
    is_local: bool = True,
) -> Layout:
    """Return how to go through a raster.

    Args:
        model: that will run.
        raster: open.
        bands: of it that are read.
        products: that are wanted.
        plan: where and how the net runs.
        stitch: "cosine", "exact" or "crop".
        tile: side in px, or "auto"; None for the card's, or for exact stitching "auto".
        overlap: in px, or a share such as "25%"; None for the card's, or less if that is enough.
        earlier: facts of an earlier run that is gone on with: where the memory decides, what it
            decided then counts, as the same command must make the same.
        bound: bytes of host memory; by default what is there and half of what is free.
        is_asked: whether the bound is the user's wish.
        width: columns to go through; None for the raster's.
        fixed_batch: whether the plan's batch is the user's wish.
        shares: whether workers share junctions.
        is_local: whether the net runs on this machine, whose memory can be asked.

    Raises:
        OptionError: if tile and overlap do not suit the net.
        OutOfMemoryError: if the bound is too low for them.
    """
    bound = default_bound() if bound is None else bound

    def tilings(side: int) -> Tiling:
        return choose_tiling(
            model,
            raster.shape,
            stitch=stitch,
            tile=side,
            overlap=overlap,
            whole=plan.batch_size > 1,
        )

    width = width or raster.width
    budget = Budget(model, plan, products, raster, bands, shares=shares)
    if plan.device.type == "cpu":
        # holes are a matter of luck: not where a bound is to be kept, or may soon be met
        has_bound = plan.batch_size > 1 or (is_asked and budget.scatters)
        plan = replace(plan, keeps_memory=not has_bound)
    is_auto = tile == "auto" or (tile is None and stitch == "exact")
    if is_auto:
        step = model.net.stride
        # before the search, so that what does not suit the net is said as such
        tilings(model.net.size or TILES[0] // step * step)
        side = model.net.size or _earlier_tile(earlier or {}, tilings)
        side = side or largest_tile(tilings, lambda grid: budget.need(grid, plan), step, bound)
    else:
        side = int(tile or model.card.tile)
    tiling = tilings(side)
    if is_auto:
        log.log(
            NOTE,
            "tile %d, overlap %d: %.2f net pixels per pixel (512/128 has 1.78)",
            side,
            tiling.overlap,
            tiling.compute_factor,
        )
    columns = width
    plan = replace(plan, batch_size=min(plan.batch_size, tiling.count))
    # a CPU has one tile at a time unless the user asks for more, which may take much memory
    is_large = is_local and plan.batch_size > 1 and plan.device.type == "cpu"
    if is_asked or is_large:
        columns = choose_columns(budget.need(tiling, plan), width, bound)
    elif width > SWATH:  # a bound nobody asked for is no reason to refuse
        need = budget.need(tiling, plan)
        fitting = int((bound - need.fixed) / need.column) // SWATH * SWATH
        columns = min(width, max(fitting, SWATH))
    if plan.device.type == "cuda" and is_local:
        free, _ = torch.cuda.mem_get_info(plan.device)
        size, columns = fit_device(budget.need(tiling, plan), plan.batch_size, columns, free)
        if not fixed_batch:
            plan = replace(plan, batch_size=(earlier or {}).get("batch_size") or size)
    return Layout(tiling, plan, columns, budget)


def _earlier_tile(earlier: Mapping[str, Any], tilings: Callable[[int], Tiling]) -> int | None:
    """Return the tile of an earlier run, if it is one that this one may have."""
    try:
        return tilings(int(earlier["tile"])).tile
    except (KeyError, TypeError, ValueError, OverflowError):
        return None  # it is of a raster smaller than a tile, of another net, or no number


def choose_tiling(
    model: Model,
    shape: tuple[int, int],
    *,
    stitch: str,
    tile: int,
    overlap: int | str | None,
    whole: bool,
) -> Tiling:
    """Return the grid for a raster; of whole tiles, as batches of several need one shape.

    Raises:
        OptionError: if that does not suit the net.
    """
    net = model.net
    if stitch == "exact":
        if overlap is not None:
            raise OptionError("exact stitching knows its overlap from the net: leave out --overlap")
        overlap = exact_overlap(net.halo)
    elif overlap is None:
        overlap = enough_overlap(model.card.overlap, net.halo)
    return plan_tiling(*shape, tile, overlap, net.stride, net.halo, net.size, stitch, whole=whole)
