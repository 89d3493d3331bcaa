"""Does the time per megapixel stay the same from small rasters to large ones?

What every run takes, however small its raster, is measured with the smallest: one tile. A megapixel
is what a run takes beyond that.
"""

import statistics

import targets
from programs import model, predict, raster
from runs import Rounds

SHAPES = ((4096, 4096), (8192, 8192), (16384, 16384), (16384, 32768))
ONE_TILE = (512, 512)


def named(shape):
    return "{} x {}".format(*shape)


def per_megapixel(rounds, shape, key="own", base=None):
    """Return milliseconds a megapixel, beyond what a run on a `base` takes if there is one."""
    spans = [
        (took[named(shape)][key], took[named(base)][key] if base else 0) for took in rounds.taken
    ]
    pixels = shape[0] * shape[1] - (base[0] * base[1] if base else 0)
    return 1e9 * statistics.median(much - little for much, little in spans) / pixels


def table(report, net, shapes, rounds):
    columns = ("raster", "wall s", "without start-up", "ms a megapixel", "beyond one tile")
    columns += ("ms a tile", "peak MB")
    report.table(f"Size, {net} net, medians of {len(rounds.taken)}", *columns)
    for shape in shapes:
        name = named(shape)
        own = rounds.median(name, "own")
        report.row(
            name,
            f"{rounds.median(name):.1f}",
            f"{own:.1f}",
            f"{per_megapixel(rounds, shape):.1f}",
            f"{per_megapixel(rounds, shape, 'wall', ONE_TILE):.1f}",
            f"{1e3 * own / rounds.said(name)['tiles']:.2f}",
            f"{rounds.median(name, 'mb'):.0f}",
        )
    lines = []
    for what, options in {"": {}, ", beyond one tile": {"key": "wall", "base": ONE_TILE}}.items():
        each = [per_megapixel(rounds, shape, **options) for shape in shapes]
        value = max(each) / min(each)
        line = f"largest / smallest time a megapixel{what}"
        lines.append((line, value, f"<= {targets.FLAT}", value <= targets.FLAT))
    targets.report(report, lines)


def measure(report, work, args):
    shapes = [(s, s) for s in args.sizes] if args.sizes else SHAPES
    for net in args.nets or ("probe",):
        file = model(work, net)
        programs = {
            named(shape): predict(raster(work, *shape), file, work / "mask.tif")
            for shape in (ONE_TILE, *shapes)
        }
        Rounds(dict([next(iter(programs.items()))])).run(1)  # does not count
        rounds = Rounds(programs)
        try:
            rounds.run(args.runs)
        finally:
            if rounds.taken:
                table(report, net, shapes, rounds)
