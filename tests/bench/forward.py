"""Only the forward pass, as often as `fcntile predict` needs it: the floor of its time.

    python forward.py MODEL SIDE ARRANGEMENT
    python forward.py MODEL SIDE --choose

SIDE is that of a square raster in px, and ARRANGEMENT one of those below; --choose tries them in
turn on whole tiles and names the one that is fastest over the raster.
"""

import json
import os
import sys
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fcntile.cli import importing

with importing.quick():  # as the command does
    import nets  # noqa: F401
    import torch

    from fcntile.inference.devices import available_cpus
    from fcntile.inference.grid import enough_overlap, plan_tiling
    from fcntile.inference.heap import keep_freed_memory
    from fcntile.models import layers
    from fcntile.models.model_file import load_model

TILE, OVERLAP = 512, 128
ROUNDS, SECONDS = 3, 1.0  # of a trial, and how long it runs each arrangement at least

Arrangement = namedtuple("Arrangement", "workers threads batch prepare")


def as_engine(net):
    """Return the net as the engine runs it; the one place here that knows how."""
    return layers.prepare(net, torch.device("cpu"))


def as_loaded(net):
    return net


CPUS = available_cpus()
ARRANGEMENTS = {
    "workers": Arrangement(CPUS, 1, 1, as_engine),
    "workers-batch-2": Arrangement(CPUS, 1, 2, as_engine),
    "workers-as-loaded": Arrangement(CPUS, 1, 1, as_loaded),
    "threads": Arrangement(1, CPUS, 4, as_engine),
}


def shapes(net, side, batch):
    """Return the shape of each tile over a square raster, all alike if they come in batches."""
    overlap = enough_overlap(OVERLAP, net.halo)
    axis = plan_tiling(side, side, TILE, overlap, net.stride, net.halo, whole=batch > 1).x
    lengths = [axis.length(k) for k in range(axis.count)]
    return list(product(lengths, lengths))


def batches(bands, tiles, size, is_last):
    """Return tiles of these shapes in batches of `size`, all of one shape views of one."""
    made = {}
    for shape in set(tiles):
        x = torch.randn(size, bands, *shape)
        made[shape] = x.to(memory_format=torch.channels_last) if is_last else x
    return [made[tiles[i]][: len(tiles) - i] for i in range(0, len(tiles), size)]


def forward(model, tiles, arrangement):
    """Return the seconds that the forward passes on tiles of these shapes take."""
    workers, threads, size, prepare = arrangement
    net = prepare(model.net)
    todo = batches(len(model.card.bands), tiles, size, prepare is as_engine)

    @torch.inference_mode()
    def run(x):
        net(x)

    start = time.perf_counter()
    with ThreadPoolExecutor(
        workers, initializer=torch.set_num_threads, initargs=(threads,)
    ) as pool:
        list(pool.map(run, todo))
    return time.perf_counter() - start


def whole_tiles(net, side, batch):
    """Return how many whole tiles have as many pixels as those over a square raster."""
    return sum(height * width for height, width in shapes(net, side, batch)) / TILE**2


def choose(model, side):
    """Return the name of the fastest arrangement, and the seconds per whole tile of each."""
    tiles, seconds = 4 * CPUS, 0.0

    def took(arrangement):
        return forward(model, [(TILE, TILE)] * tiles, arrangement)

    while (seconds := took(ARRANGEMENTS["workers"])) < SECONDS:
        tiles = max(2 * tiles, round(tiles * SECONDS / seconds))
    tiles = -(-tiles // (4 * CPUS)) * 4 * CPUS
    best = dict.fromkeys(ARRANGEMENTS, float("inf"))
    for _ in range(ROUNDS):
        for name, arrangement in ARRANGEMENTS.items():
            best[name] = min(best[name], took(arrangement) / tiles)
    run = {
        name: seconds * whole_tiles(model.net, side, ARRANGEMENTS[name].batch)
        for name, seconds in best.items()
    }
    fastest, overlap = min(run, key=run.get), enough_overlap(OVERLAP, model.net.halo)
    return {"fastest": fastest, "seconds_per_tile": best, "overlap": overlap}


def main(name, side, arrangement="workers"):
    keep_freed_memory()  # as predict does
    torch.set_num_threads(1)
    model = load_model(name)
    if arrangement == "--choose":
        print(json.dumps(choose(model, int(side))), flush=True)
    else:
        chosen = ARRANGEMENTS[arrangement]
        tiles = shapes(model.net, int(side), chosen.batch)
        print(json.dumps({"seconds": forward(model, tiles, chosen)}), flush=True)
    os._exit(0)  # as the command does


if __name__ == "__main__":
    main(*sys.argv[1:])
