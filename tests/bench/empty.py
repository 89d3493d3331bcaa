"""What a raster whose lower 90 % are without data takes, beside the same one full."""

from programs import model, predict, raster
from runs import Rounds

WIDTH, HEIGHT, EMPTY = 8192, 10240, 0.9


def measure(report, work, args):
    for net in args.nets or ("bundled",):
        programs = {
            name: predict(raster(work, WIDTH, HEIGHT, empty), model(work, net), work / "mask.tif")
            for name, empty in (("full", 0.0), ("90 % empty", EMPTY))
        }
        rounds = Rounds(programs)
        try:
            rounds.run(args.runs)
        finally:
            if rounds.taken:
                table(report, net, rounds)


def table(report, net, rounds):
    report.table(
        f"{WIDTH} x {HEIGHT} px with and without data, {net} net",
        *("raster", "wall s", "without start-up", "full / this, wall", "without start-up"),
    )
    for name in rounds.programs:
        report.row(
            name,
            *(f"{rounds.median(name, key):.1f}" for key in ("wall", "own")),
            *(f"{rounds.ratio('full', name, key):.1f}" for key in ("wall", "own")),
        )
