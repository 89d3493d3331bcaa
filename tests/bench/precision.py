"""What half precision saves, and how many labels it changes, on rasters of your own.

    python tests/bench/precision.py RASTER... [--precision bf16] [--rounds 3] [--model FILE]

It takes turns with float32. Prints a row of a Markdown table for each raster.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import rasterio
from runs import run

FCNTILE = Path(__file__).with_name("fcntile_with_test_nets.py")


def predict(image, out, *options):
    """Return the wall seconds of a run, and its mask."""
    wall = run([sys.executable, FCNTILE, "predict", image, "-o", out, "--overwrite", *options])
    with rasterio.open(out) as mask:
        return wall["wall"], mask.read(1, masked=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rasters", nargs="+", metavar="RASTER")
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="buildings")
    args = parser.parse_args()
    model = ("--model", args.model)
    print(f"| raster | {args.precision} / fp32, wall | labels that agree |\n|---|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "mask.tif")
        for image in args.rasters:
            ratios = []
            for _ in range(args.rounds):
                usual, exact = predict(image, out, *model)
                half, rounded = predict(image, out, *model, "--precision", args.precision)
                ratios.append(half / usual)
            agree = (exact == rounded).mean()  # of those with data
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            print(
                f"| {Path(image).name}, {exact.shape[1]} x {exact.shape[0]} "
                f"| {statistics.median(ratios):.2f} ({spread}) | {agree:.3%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
