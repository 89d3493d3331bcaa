"""What two worker processes take, beside one process with as many threads."""

import targets
from programs import model, predict, raster
from runs import Rounds

SHAPES = {"probe": ((8192, 8192), (16384, 32768)), "bundled": ((8192, 8192),)}
ONE, TWO = "one process", "two workers"


def measure(report, work, args):
    for net in args.nets or SHAPES:
        for shape in [(s, s) for s in args.sizes] if args.sizes else SHAPES[net]:
            one = predict(raster(work, *shape), model(work, net), work / "mask.tif")
            rounds = Rounds({ONE: one, TWO: [*one, "--workers", 2]})
            try:
                rounds.run(args.runs)
            finally:
                if rounds.taken:
                    table(report, net, shape, rounds)


def table(report, net, shape, rounds):
    name = "{} x {} px".format(*shape)
    columns = ("program", "wall s", "CPU s", "without start-up")
    report.table(f"Workers, {net} net, {name}, medians of {len(rounds.taken)}", *columns)
    for program in rounds.programs:
        times = (rounds.median(program, key) for key in ("wall", "cpu", "own"))
        report.row(program, *(f"{seconds:.1f}" for seconds in times))
    value = rounds.ratio(ONE, TWO)
    line = f"{ONE} / {TWO}", value, f">= {targets.WORKERS}", value >= targets.WORKERS
    targets.report(report, [line])
