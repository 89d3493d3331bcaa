"""What the figures should be, and whether they are."""

import statistics

from programs import COG, FORWARD, GTIFF, PEERS, SAME

FORWARDS = {  # predict's wall seconds over those of forward only, at most
    "probe": {GTIFF: 1.5, COG: 1.9},
    "bundled": {GTIFF: 1.08},
    "fcn8s": {GTIFF: 1.02},
}
BLENDING = {"probe": 3.0, "bundled": 1.5, "fcn8s": 1.2}  # the fastest peer's over predict's
GEODEEP = {"probe": 2.0, "bundled": 1.0, "fcn8s": 1.0}
MEMORY = 0.25  # predict's peak over the smallest of a blending peer's, at 8192 px
WORKERS = 1.0  # the wall seconds of one process over those of two workers, at least
FLAT = 1.05  # the largest time per megapixel over the smallest
GPU = 0.9  # throughput of predict over that of forward only; at most for the rest a GPU waits
GPU_SECONDS = {10_000: 1.5}  # that a square raster takes there, by its side in px


def blending(names):
    return [name for name in names if name in PEERS and PEERS[name].blends]


def speed(net, rounds):
    """Yield (what, value, target, is met) of the rounds of a net."""
    for program, most in FORWARDS.get(net, {}).items():
        for floor in (FORWARD, SAME):
            if floor in rounds.programs:
                value = rounds.ratio(program, floor)
                yield f"{program} / {floor}", value, f"<= {most}", value <= most
    others = [(blending(rounds.programs), BLENDING), (["GeoDeep"], GEODEEP)]
    for names, least in others:
        names = [name for name in names if name in rounds.programs]
        if names and net in least:
            fastest = min(names, key=rounds.median)
            value = rounds.ratio(fastest, GTIFF)
            yield f"{fastest} / {GTIFF}", value, f">= {least[net]}", value >= least[net]


def memory(peak, of_peers, size):
    """Yield (what, value, target, is met) of peak memory by shape, and of peers at `size` px."""
    peers = [of_peers[name] for name in blending(of_peers)]
    if peers:
        value = peak[size, size] / min(peers)
        yield f"predict / smallest blending peer, {size} px", value, f"<= {MEMORY}", value <= MEMORY
    taller = [shape for shape in peak if shape[0] == size and shape[1] > size]
    for shape in taller:
        value = peak[shape] / peak[size, size]
        yield "{} x {} / {} x {}".format(*shape, size, size), value, f"<= {FLAT}", value <= FLAT


def gpu(side, spans):
    """Yield (what, value, target, is met) of (forward only, predict) seconds on a raster."""
    value = statistics.median(forward / took for forward, took in spans)
    yield "throughput of predict / forward only", value, f">= {GPU}", value >= GPU
    if most := GPU_SECONDS.get(side):
        value = statistics.median(took for _, took in spans)
        yield "seconds beyond one tile", value, f"<= {most}", value <= most


def report(to, lines):
    """Write a table of what was wanted."""
    lines = list(lines)
    if lines:
        to.table("Targets", "figure", "is", "wanted", "")
    for what, value, wanted, is_met in lines:
        to.row(what, f"{value:.3f}", wanted, "met" if is_met else "**missed**")
