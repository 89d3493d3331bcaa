"""Peak memory: predict's, by the raster's shape, and other programs' at 8192 x 8192 px."""

import targets
from programs import fits, model, peers, predict, raster
from runs import run
from speed import filled

SIZE = 8192
SHAPES = ((4096, 4096), (SIZE, SIZE), (SIZE, 4 * SIZE), (2 * SIZE, 2 * SIZE))
WIDE = (100_000, 2048)


def measure(report, work, args):
    shapes = [(s, s) for s in args.sizes] if args.sizes else (*SHAPES, WIDE)
    for net in args.nets or ("probe",):
        file = model(work, net)
        report.table(f"Memory, {net} net", "raster", "program", "peak MB")
        peak = {}
        for shape in shapes:
            took = run(predict(raster(work, *shape), file, work / "mask.tif", "COG"))
            peak[shape] = took["mb"]
            report.row("{} x {}".format(*shape), "fcntile predict, COG", f"{took['mb']:.0f}")
        if (SIZE, SIZE) not in peak:
            continue
        of_peers = {}
        for name, command in peers(work, net, args).items():
            if fits(name, SIZE * SIZE):
                took = run(filled(command, raster(work, SIZE, SIZE), work / "peer.tif"))
                of_peers[name] = took["mb"]
                report.row(f"{SIZE} x {SIZE}", name, f"{took['mb']:.0f}")
        targets.report(report, targets.memory(peak, of_peers, SIZE))
