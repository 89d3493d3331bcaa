"""What a worker has open while it walks down from part to part.

The next part is the one below, for which the walk has already read and inferred ahead.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import rasterio
from rasterio.windows import Window

from fcntile.errors import InputError
from fcntile.inference.blend import Half, Halves
from fcntile.inference.devices import choose_device
from fcntile.inference.engine import Engine
from fcntile.inference.heap import keep_freed_memory
from fcntile.inference.job import Job, Walks
from fcntile.inference.provenance import facts_of
from fcntile.inference.stages import Clock
from fcntile.models.model_file import load_model
from fcntile.raster.gdal import open_raster, settings_of_process
from fcntile.raster.identity import identify
from fcntile.raster.outputs import Output
from fcntile.raster.parts import Facts, differences


@dataclass(frozen=True)
class Order:
    """All that a worker needs to make parts of a run, and to know that they are the right ones.

    Args:
        walker: the class that makes parts.
        job: what to make.
        outputs: files that the parts are of.
        facts: what decides their pixels, as the client sees it.
        cache: bytes of GDAL's block cache.
    """

    walker: Callable[[Job, Engine, rasterio.DatasetReader, tuple[Output, ...]], Walks]
    job: Job
    outputs: tuple[Output, ...]
    facts: Facts
    cache: int


@dataclass(frozen=True)
class Made:
    """A finished part.

    Args:
        files: name and content of each.
        tiles: places of the grid that the worker went to since the part before.
        skipped: those without a pixel to predict.
        seconds: by stage, since the part before.
        worker: address of who has made it.
    """

    files: list[tuple[str, bytes]]
    tiles: int = 0
    skipped: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    worker: str = ""


class Walk:
    """A way down from part to part, with the raster open.

    A new walk opens it anew: what a walk that is given up has read ahead and found damaged, GDAL
    would keep in its cache, and hand out as pixels the next time.

    Args:
        order: what to make.
        engine: for its model.
        route: windows of the parts that are probably wanted, below one another.
        scratch: folder for the files in the making.

    Raises:
        InputError: if the raster cannot be opened, or raster or model are not what the client has.
    """

    def __init__(self, order: Order, engine: Engine, route: Sequence[Window], scratch: str) -> None:
        self._ahead, self._clock = list(route), engine.clock
        with ExitStack() as stack:
            temporary = tempfile.TemporaryDirectory(prefix="fcntile-", dir=scratch)
            folder = Path(stack.enter_context(temporary))
            job = order.job
            settings = settings_of_process(job.input, job.plan.threads, order.cache)
            stack.enter_context(settings)
            self._walker = _open(order, engine, stack)
            self._walker.halves = self._halves = Halves()
            self._parts = stack.enter_context(closing(self._walker.parts(folder, route)))
            self._stack = stack.pop_all()

    def leads_to(self, window: Window) -> bool:
        """Tell whether a part is the next one."""
        return self._ahead[:1] == [window]

    def next(self) -> Made:
        """Return the next part.

        Raises:
            FcntileError: of the kinds that making parts raises.
        """
        window, paths = next(self._parts)
        assert window == self._ahead[0], "the walk went elsewhere"
        del self._ahead[0]
        walker, seconds = self._walker, self._clock.seconds
        made = Made(contents(paths), walker.done, walker.skipped, dict(seconds))
        walker.done = walker.skipped = 0
        seconds.clear()
        return made

    def take_halves(self) -> dict[str, Half]:
        """Return the halves of junctions above and below the part made last, and let go of them.

        They are there: the blender leaves them before it gives the rows that complete the part.
        """
        above, self._halves.above = self._halves.above, None
        below = None if self._ahead else self._halves.below
        return {side: half for side, half in (("above", above), ("below", below)) if half}

    def close(self) -> None:
        """Close what is open."""
        self._stack.close()


def open_engine(order: Order) -> Engine:
    """Return the model of an order, ready to run in this process.

    Raises:
        FcntileError: of the kinds that opening model and device raises.
    """
    keep_freed_memory()  # in workers that others have started; late, but most maps are large
    job = order.job
    plan = replace(job.plan, device=choose_device(job.plan.device.type))
    return Engine(load_model(job.model), plan, job.tiling, Clock())


def _open(order: Order, engine: Engine, stack: ExitStack) -> Walks:
    """Return what makes parts here, if it makes those that the client wants."""
    job, facts = replace(order.job, plan=engine.plan), order.facts
    raster = stack.enter_context(open_raster(job.input, threads=job.plan.threads))
    seen = facts_of(job, engine.model, facts["stitch"], Window(*facts["window"]))
    if difference := differences(facts, seen | {"raster": identify(raster)}):
        raise InputError(f"it is not what the client has: its {difference}")
    return order.walker(job, engine, raster, order.outputs)


def contents(paths: Sequence[Path]) -> list[tuple[str, bytes]]:
    """Return the names and contents of files, and remove them."""
    files = [(path.name, path.read_bytes()) for path in paths]
    for path in paths:
        path.unlink()
    return files
