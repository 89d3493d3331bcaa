"""What the ways of upsampling do to the same net on the same data: a table for docs/upsampling.md.

    python tests/bench/upsampling.py DATA --work runs/

DATA has train/ and test/ with orthophotos and their labels (place_0.tif, place_0_label.tif). Two
nets are trained from scratch with each upsampling and seed, and score on the test images; then
the time of a forward pass is taken, all nets in turn. What --work has already is not done again.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from fcntile.models import create_model
from fcntile.models.layers import fold_batch_norm
from fcntile.models.upsampling import UPSAMPLINGS

NETS = {
    "mirror-vgg": (
        ("blocks=3", "width=12", "head=64", "dropout=0"),
        "unpooling",
        ("switches", *UPSAMPLINGS),
    ),
    "fcn8s-small": ((), "upsampling", tuple(k for k in UPSAMPLINGS if k != "zero-fill")),
}
SEEDS = (0, 1, 2)
TRAINING = "--steps 300 --warmup 30 --window 128 --batch-size 8 --val-share 0"
LOSS = "--loss ce+0.5*dice --scale 1.5"
TOLERANCE = 3  # px of the boundary F1
TILE, ROUNDS = 512, 15


def fcntile(*arguments):
    """Run the command line in a process of its own and return its JSON summary."""
    command = [sys.executable, "-m", "fcntile", "-q", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def score(data, work, net, kind, seed):
    """Train and test once; return mean IoU and boundary F1 of the buildings."""
    options, name, _ = NETS[net]
    stem = f"{net}-{kind}-{seed}"
    result = work / f"{stem}.json"
    if not result.exists():
        arch = [f"--arch-option={option}" for option in (*options, f"{name}={kind}")]
        model = work / f"{stem}.safetensors"
        fcntile(
            *("train", data / "train", f"{data}/train/*_label.tif", "-o", model, "--overwrite"),
            *(
                "--arch",
                net,
                *arch,
                *TRAINING.split(),
                *LOSS.split(),
                "--seed",
                seed,
                "--threads",
                1,
            ),
        )
        matrix, boundary = torch.zeros(2, 2, dtype=torch.long), []
        for labels in sorted((data / "test").glob("*_label.tif")):
            image = labels.with_name(labels.name.replace("_label", ""))
            mask = work / f"{stem}.tif"
            fcntile("predict", image, "-o", mask, "--model", model, "--overwrite", "--threads", 1)
            found = fcntile("evaluate", mask, labels, "--tolerance", TOLERANCE)
            matrix += torch.tensor(found["confusion_matrix"])
            boundary.append(found["classes"][1]["boundary_f1"])
        hits = matrix.diag().double()
        iou = hits / (matrix.sum(0) + matrix.sum(1) - hits)
        scores = {"miou": iou.mean().item(), "boundary_f1": statistics.mean(boundary)}
        result.write_text(json.dumps(scores))
    return json.loads(result.read_text())


def forward_times():
    """Return the median seconds of a forward pass of one tile on one thread, all nets in turn."""
    torch.set_num_threads(1)
    nets = {}
    for net, (options, name, kinds) in NETS.items():
        for kind in kinds:
            given = {key: int(value) for key, value in (o.split("=") for o in options)}
            made = create_model(net, 3, 2, **given, **{name: kind}).eval()
            folded = fold_batch_norm(made).to(memory_format=torch.channels_last)
            nets[net, kind] = folded, []
    tile = torch.randn(1, 3, TILE, TILE).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        for _ in range(ROUNDS + 1):
            for net, seconds in nets.values():
                start = time.perf_counter()
                net(tile)
                seconds.append(time.perf_counter() - start)
    return {key: statistics.median(seconds[1:]) for key, (_, seconds) in nets.items()}


def spread(values):
    return f"{statistics.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("upsampling-runs"))
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    args.work.mkdir(exist_ok=True)
    runs = [
        (n, kind, seed) for n, (_, _, kinds) in NETS.items() for seed in SEEDS for kind in kinds
    ]
    with ThreadPoolExecutor(args.processes) as pool:
        done = pool.map(lambda run: score(args.data, args.work, *run), runs)
        scores = dict(zip(runs, done, strict=True))
    seconds = forward_times()
    for net, (_, _, kinds) in NETS.items():
        print(f"\n| {net} | mIoU | boundary F1 | time of a tile |\n|---|--:|--:|--:|")
        for kind in kinds:
            here = [scores[net, kind, seed] for seed in SEEDS]
            miou, boundary = (spread([s[k] for s in here]) for k in ("miou", "boundary_f1"))
            ratio = seconds[net, kind] / seconds[net, "bilinear"]
            print(f"| {kind} | {miou} | {boundary} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
