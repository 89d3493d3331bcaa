"""Predict beside the forward passes alone and beside other programs: same net and tile."""

import os

import targets
from programs import (
    ALL,
    COG,
    GTIFF,
    HERE,
    INSTALL,
    OVERLAP,
    PYTHON,
    fits,
    forward,
    installed,
    model,
    peers,
    predict,
    raster,
    wanted,
)
from runs import Rounds, run

SIZES = {"probe": (4096, 8192, 16384), "bundled": (4096, 8192), "fcn8s": (2048,)}
# px, which tiles fill exactly: those of the others and, with less overlap, predict's
CHECK = {"probe": 2432, "fcn8s": 896}
SAME = 0.999  # of the labels where no tiles meet


def filled(command, image, mask):
    return [{"IMAGE": image, "MASK": mask}.get(part, part) for part in command]


def check(report, work, net, others):
    """Compare every program's labels with predict's, and give up if they do another job.

    Running each once also loads what later runs find in memory.
    """
    size, reference = CHECK.get(net, 1280), work / "reference.tif"
    image = raster(work, size, size)
    run(predict(image, model(work, net), reference))
    columns = ("program", "labels as predict's", "where no tiles meet")
    report.table(f"{net} net: do they do the same? {size} x {size} px", *columns)
    for name, command in others.items():
        mask = work / "checked.tif"
        run(filled(command, image, mask))
        median = ["--median"] if name == "GeoDeep" else []
        shares = run([PYTHON, HERE / "agree.py", mask, reference, *median])["json"]
        report.row(name, f"{shares['everywhere']:.2%}", f"{shares['alone']:.3%}")
        if shares["alone"] < SAME:
            raise SystemExit(f"{name} does another job than predict: no comparison")


def compared(report, work, net, size, others):
    """Return the commands that take turns, by name."""
    image, file = raster(work, size, size), model(work, net)
    floors, tried = forward(file, size)
    times = ", ".join(f"{k} {1e3 * v:.1f}" for k, v in tried["seconds_per_tile"].items())
    report.line(f"\nForward only runs as `{tried['fastest']}` (ms a tile: {times}).")
    made = {
        GTIFF: predict(image, file, work / "mask.tif"),
        COG: predict(image, file, work / "mask.tif", "COG"),
        **floors,
    }
    if tried["overlap"] < OVERLAP:
        made[ALL] = predict(image, file, work / "mask.tif", overlap=OVERLAP)
    for name, command in others.items():
        if fits(name, size * size):
            made[name] = filled(command, image, work / "peer.tif")
        else:
            report.line(f"\n{name}: left out, its arrays do not fit the free memory.")
    return made


def table(report, net, size, rounds):
    columns = ("program", "wall s", "without start-up", "CPU s", "peak MB")
    columns += ("predict is faster by", "without start-up", "in CPU s")
    title = f"{net} net, {size} x {size} px, medians of {len(rounds.taken)}"
    report.table(title, *columns)
    for name in rounds.programs:
        seconds = [f"{rounds.median(name, key):.1f}" for key in ("wall", "own", "cpu")]
        faster = rounds.ratios(name, GTIFF)
        span = f"{rounds.ratio(name, GTIFF):.2f} ({faster[0]:.2f} to {faster[-1]:.2f})"
        others = (f"{rounds.ratio(name, GTIFF, key):.2f}" for key in ("own", "cpu"))
        ratios = ["", "", ""] if name == GTIFF else [span, *others]
        report.row(name, *seconds, f"{rounds.median(name, 'mb'):.0f}", *ratios)


def stages(report, rounds):
    """Write what predict's stages took in the last round, and name the slowest."""
    said = rounds.said(GTIFF)
    seconds = said["stage_seconds"]
    workers = len(os.sched_getaffinity(0))
    busy = {s: t for s, t in seconds.items() if not s.startswith("wait")}
    share = {s: t / (workers if s == "infer" else 1) / said["seconds"] for s, t in busy.items()}
    slowest = max(share, key=share.get)
    report.table("Stages of predict, s", *seconds, "run", "bottleneck")
    report.row(*seconds.values(), said["seconds"], f"{slowest}, busy {share[slowest]:.0%}")


def measure(report, work, args):
    for net in args.nets or SIZES:
        others = peers(work, net, args)
        for name in wanted(args.peers):
            if not installed(name):
                report.line(f"\n{name}: not installed ({INSTALL}).")
        check(report, work, net, others)
        for size in args.sizes or SIZES[net]:
            rounds = Rounds(compared(report, work, net, size, others))
            try:
                rounds.run(args.runs)
            finally:  # an interrupted run keeps its whole rounds
                if rounds.taken:
                    table(report, net, size, rounds)
                    stages(report, rounds)
                    targets.report(report, targets.speed(net, rounds))
