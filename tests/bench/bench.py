"""Compare whole processes side by side and print Markdown tables.

    python tests/bench/bench.py [IMAGE] [--runs 5]

IMAGE is an RGB orthophoto; by default a mosaic of the demo's, 8192 x 4096 px.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))

PYTHON = sys.executable
FCNTILE = [PYTHON, str(HERE / "fcntile_with_test_nets.py"), "predict"]


def run(command):
    """Return wall seconds, the process's own seconds, and its peak memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {command}")
    own = json.loads(out)
    wall = time.perf_counter() - start
    cpu = usage.ru_utime + usage.ru_stime
    return {
        "wall": wall,
        "own": own["seconds"],
        "cpu": cpu,
        "mb": usage.ru_maxrss / 1e3,
        "json": own,
    }


def in_turn(runs, *commands):
    """Run commands in turn; return the list of runs of each, after one that does not count."""
    rounds = [[run(c) for c in commands] for _ in range(runs + 1)][1:]
    return list(zip(*rounds, strict=True))


def median(runs, key):
    return statistics.median(r[key] for r in runs)


def ratio(a, b, key="wall"):
    """Return the median of the ratios, pair by pair."""
    return statistics.median(x[key] / y[key] for x, y in zip(a, b, strict=True))


def row(*cells):
    print("| " + " | ".join(str(c) for c in cells) + " |", flush=True)


def head(title, *cells):
    print(f"\n### {title}\n")
    row(*cells)
    row(*["---"] + ["--:"] * (len(cells) - 1))


def mosaic(path, width, height, *, empty=0.0):
    """Write mirrored copies of the demo's orthophoto; the lower `empty` share is without data."""
    with rasterio.open(ROOT / "docs/demo/philippines_1.tif") as demo:
        pixels = demo.read()
        profile = {"crs": demo.crs, "transform": demo.transform}
    cell = np.concatenate([pixels, pixels[:, ::-1]], 1)
    cell = np.concatenate([cell, cell[:, :, ::-1]], 2)
    strip = np.tile(cell, (1, 1, -(-width // cell.shape[2])))[:, :, :width]
    full = round(height * (1 - empty) / 512) * 512
    options = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    if empty:
        options |= {"nodata": 0, "sparse_ok": True}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=3,
        dtype="uint8",
        **profile,
        **options,
    ) as raster:
        for y in range(0, full, 512):
            rows = strip[:, y % 2048 : y % 2048 + min(512, height - y)]
            rows = np.maximum(rows, 1) if empty else rows
            raster.write(rows, window=Window(0, y, width, rows.shape[1]))
    return path


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("image", nargs="?")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    from nets import save_test_model

    commit = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, commit {commit}, ")
    print(f"Python {platform.python_version()}; medians of {args.runs} runs taken in turn")

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        image = args.image or mosaic(folder / "image.tif", 8192, 4096)
        probe = save_test_model(folder / "probe.safetensors", "probe", classes=6)
        mask = folder / "mask.tif"

        square = mosaic(folder / "mosaic_8192x8192.tif", 8192, 8192)
        head(
            "Whole runs",
            "net, raster",
            "program",
            "wall s",
            "CPU s",
            "peak MB",
            "predict is faster by",
        )
        for net, model, raster in (("bundled", "buildings", image), ("probe", probe, square)):
            name = f"{net}, {Path(raster).name}"
            predict = [*FCNTILE, raster, "-o", mask, "--model", model, "--overwrite", "--json"]
            tiles = run(predict)["json"]["tiles"]
            programs = {
                "fcntile predict": predict,
                "forward only": [PYTHON, HERE / "forward.py", model, tiles],
                "plain script": [PYTHON, HERE / "plain.py", raster, model, folder / "plain.tif"],
            }
            taken = in_turn(args.runs, *programs.values())
            for program, runs in zip(programs, taken, strict=True):
                row(
                    name,
                    program,
                    f"{median(runs, 'wall'):.1f}",
                    f"{median(runs, 'cpu'):.1f}",
                    f"{median(runs, 'mb'):.0f}",
                    "" if runs is taken[0] else f"{ratio(runs, taken[0]):.2f}",
                )
            print(
                f"\n{name}: predict takes {ratio(taken[0], taken[1]):.3f} x the forward only "
                f"(without start-up of either: {ratio(taken[0], taken[1], 'own'):.3f} x); "
                f"stage seconds of the last run {taken[0][-1]['json']['stage_seconds']}\n"
            )

        head("90 % without data", "raster", "wall s", "own s", "full / empty (wall)", "(own)")
        full = mosaic(folder / "full.tif", 8192, 10240)
        empty = mosaic(folder / "empty.tif", 8192, 10240, empty=0.9)
        commands = [[*FCNTILE, i, "-o", mask, "--overwrite", "--json"] for i in (full, empty)]
        a, b = in_turn(max(1, args.runs // 2), *commands)
        row("full", f"{median(a, 'wall'):.1f}", f"{median(a, 'own'):.1f}", "", "")
        row(
            "90 % empty",
            f"{median(b, 'wall'):.1f}",
            f"{median(b, 'own'):.1f}",
            f"{ratio(a, b):.1f}",
            f"{ratio(a, b, 'own'):.1f}",
        )

        head("Memory", "raster", "net", "peak MB")
        for width, height in ((4096, 4096), (4096, 16384)):
            tall = mosaic(folder / "tall.tif", width, height)
            peak = run([*FCNTILE, tall, "-o", mask, "--model", probe, "--overwrite", "--json"])
            row(f"{width} x {height}", "probe", f"{peak['mb']:.0f}")
        wide = mosaic(folder / "wide.tif", 100_000, 2048)
        peak = run([*FCNTILE, wide, "-o", mask, "--overwrite", "--json"])
        row("100000 x 2048", "bundled", f"{peak['mb']:.0f}")


if __name__ == "__main__":
    main()
