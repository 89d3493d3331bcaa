"""Compare whole runs on a raster behind a slow server with runs on the same file on disk.

    python tests/bench/remote.py RASTER [--delay 0.05] [--rounds 3] [--fail-every 20]

The two take turns. Prints a row of a Markdown table.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from range_server import RangeServer


def run(image, out, *more):
    """Return the seconds of a run."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "fcntile", "-q", "predict", str(image), "-o", str(out), *more]
    subprocess.run(command, check=True)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raster", type=Path)
    parser.add_argument("--delay", type=float, default=0.05, help="seconds per request")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fail-every", type=int)
    args, more = parser.parse_known_args()
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        local, remote = Path(folder, "local.tif"), Path(folder, "remote.tif")
        for _ in range(args.rounds):
            with RangeServer(
                args.raster.parent, delay=args.delay, fail_every=args.fail_every
            ) as server:
                here = run(args.raster, local, "--overwrite", *more)
                there = run(server.url(args.raster.name), remote, "--overwrite", *more)
            pairs.append((here, there))
            print(f"{here:.1f} s local, {there:.1f} s remote", file=sys.stderr)
        assert local.read_bytes() == remote.read_bytes()
    sent = server.sent(args.raster.name) / args.raster.stat().st_size
    ratios = [here / there for here, there in pairs]
    here, there = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    print("| raster | local, s | remote, s | throughput, remote / local | requests | bytes |")
    print("|---|--:|--:|--:|--:|--:|")
    print(
        f"| {args.raster.name} | {here:.1f} | {there:.1f} | {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}) | {len(server.log)} | {sent:.2f} x |"
    )


if __name__ == "__main__":
    main()
