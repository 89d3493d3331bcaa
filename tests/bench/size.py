"""Does the time per megapixel stay the same from small rasters to large ones?"""

import targets
from programs import model, predict, raster, tiles
from runs import Rounds

SHAPES = ((4096, 4096), (8192, 8192), (16384, 16384), (16384, 32768))


def per_megapixel(rounds, shape, key="own"):
    width, height = shape
    return 1e3 * rounds.median(f"{width} x {height}", key) / (width * height / 1e6)


def table(report, net, shapes, rounds):
    columns = ("raster", "wall s", "without start-up", "ms a megapixel", "ms a tile", "peak MB")
    report.table(f"Size, {net} net, medians of {len(rounds.taken)}", *columns)
    for shape in shapes:
        name = "{} x {}".format(*shape)
        own = rounds.median(name, "own")
        report.row(
            name,
            f"{rounds.median(name):.1f}",
            f"{own:.1f}",
            f"{per_megapixel(rounds, shape):.1f}",
            f"{1e3 * own / tiles(*shape):.2f}",
            f"{rounds.median(name, 'mb'):.0f}",
        )
    each = [per_megapixel(rounds, shape) for shape in shapes]
    value = max(each) / min(each)
    line = "largest / smallest time a megapixel", value, f"<= {targets.FLAT}", value <= targets.FLAT
    targets.report(report, [line])


def measure(report, work, args):
    shapes = [(s, s) for s in args.sizes] if args.sizes else SHAPES
    for net in args.nets or ("probe",):
        file = model(work, net)
        programs = {
            f"{w} x {h}": predict(raster(work, w, h), file, work / "mask.tif") for w, h in shapes
        }
        Rounds(dict([next(iter(programs.items()))])).run(1)  # does not count
        rounds = Rounds(programs)
        try:
            rounds.run(args.runs)
        finally:
            if rounds.taken:
                table(report, net, shapes, rounds)
