"""Predict on a GPU in bfloat16, beside the forward passes alone.

What a run takes before its first tile (Python's imports, the device's start, the model on its way
there) is measured with a raster of one tile, and left out.
"""

import statistics

import targets
from programs import COG, FORWARD, GTIFF, HERE, PYTHON, model, predict, raster
from runs import Rounds

SIDE = 10_000  # px
TILE = "one tile"
PRECISION = "bf16"


def measure(report, work, args):
    for net in args.nets or ("fcn8s",):
        for side in args.sizes or (SIDE,):
            file, image, mask = model(work, net), raster(work, side, side), work / "mask.tif"
            made = {
                TILE: predict(raster(work, 512, 512), file, mask),
                GTIFF: predict(image, file, mask),
                COG: predict(image, file, mask, "COG"),
            }
            options = ["--device", args.device, "--precision", PRECISION]
            programs = {name: [*command, *options] for name, command in made.items()}
            floor = [PYTHON, HERE / "forward_on.py", file, side, args.device, PRECISION]
            Rounds({TILE: programs[TILE]}).run(1)  # does not count
            rounds = Rounds(programs | {FORWARD: floor})
            try:
                rounds.run(args.runs)
            finally:
                if rounds.taken:
                    table(report, net, side, rounds)


def beyond(took, name):
    """Return the seconds of a program of a round without those before its first tile."""
    if name == FORWARD:
        return took[name]["own"]
    return took[name]["wall"] - took[TILE]["wall"]


def table(report, net, side, rounds):
    title = f"{net} net in {PRECISION}, {side} x {side} px, medians of {len(rounds.taken)}"
    columns = ("wall s", "beyond one tile", "CPU s", "peak MB")
    report.table(f"On {rounds.said(FORWARD)['device']}, {title}", "program", *columns)
    for name in rounds.programs:
        seconds = statistics.median(beyond(took, name) for took in rounds.taken)
        report.row(
            name,
            f"{rounds.median(name):.1f}",
            f"{seconds:.2f}",
            f"{rounds.median(name, 'cpu'):.1f}",
            f"{rounds.median(name, 'mb'):.0f}",
        )
    spans = [(beyond(took, FORWARD), beyond(took, GTIFF)) for took in rounds.taken]
    targets.report(report, targets.gpu(side, spans))
