"""How much of a training loop is not the net: windows read as usual, or one batch kept in memory.

    python tests/bench/train.py DATA/train "DATA/train/*_label.tif"

The same net takes turns with four sources of batches: one batch in memory, threads as `train` has
them, one thread, and torch's DataLoader with two worker processes.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

import fcntile.train
from fcntile.inference.devices import available_cpus
from fcntile.inference.heap import keep_freed_memory
from fcntile.training.loader import load
from fcntile.training.recipes import make_settings
from fcntile.training.session import READERS


def prepare(images, labels, settings):
    """Return the trainer and the windows that `train` would work with."""
    made = {}

    def keep(run, trainer, windows, ground):
        made.update(trainer=trainer, windows=windows)

    fcntile.train.preview = keep
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "model.safetensors"
        fcntile.train.train([images], labels, output, settings=settings, dry_run=True)
    return made["trainer"], made["windows"]


def processes(windows, size, count):
    """Yield batches that worker processes read."""

    def forget_handles(worker):  # GDAL's do not survive a fork
        windows._dataset._local = threading.local()
        torch.set_num_threads(1)

    numbers = range(size * count)
    chosen = torch.utils.data.Subset(windows, numbers)
    yield from DataLoader(chosen, size, num_workers=2, worker_init_fn=forget_handles)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images")
    parser.add_argument("labels")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    settings = make_settings()
    trainer, windows = prepare(args.images, args.labels, settings)
    size, count = settings.batch_size, args.steps + 3
    keep_freed_memory()
    torch.set_num_threads(available_cpus())
    batches = [range(i * size, (i + 1) * size) for i in range(count)]
    kept = next(load(windows, batches[:1], 1))
    sources = {
        "in memory": lambda: itertools.repeat(kept),
        "threads": lambda: load(windows, batches, min(READERS, available_cpus())),
        "one thread": lambda: load(windows, batches, 1),
        "two processes": lambda: processes(windows, size, count),
    }
    rates = {name: [] for name in sources}
    for turn in range(args.rounds + 1):
        for name, source in sources.items():
            stream = source()
            for step in range(3):  # readers start, caches fill
                trainer.step(step, stream)
            start = time.perf_counter()
            for step in range(args.steps):
                trainer.step(step, stream)
            if turn:
                rates[name].append(size * args.steps / (time.perf_counter() - start))
            if hasattr(stream, "close"):
                stream.close()
    for name, values in rates.items():
        ratios = [v / m for v, m in zip(values, rates["in memory"], strict=True)]
        row = {
            "batches": name,
            "samples_per_second": round(statistics.median(values), 1),
            "of_in_memory": round(statistics.median(ratios), 3),
            "least": round(min(ratios), 3),
        }
        print(json.dumps(row))


if __name__ == "__main__":
    main()
