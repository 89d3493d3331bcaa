"""Count the labels that tiling changes, by overlap and guard, and print a Markdown table.

    python tests/bench/seams.py IMAGE MODEL

The reference is the untiled forward pass over the same pixels, reflected beyond the right and
bottom rim as `fcntile predict` does it. It needs memory for the whole image: 2048 x 2048 px of it
are taken.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import nets  # noqa: F401
import numpy as np
import rasterio
import torch
from rasterio.windows import Window

from fcntile.inference.blend import blend
from fcntile.inference.devices import make_plan
from fcntile.inference.engine import infer
from fcntile.inference.stages import Clock
from fcntile.inference.tiling import Tiling
from fcntile.models.model_file import load_model
from fcntile.raster.reader import Strip

SIZE, TILE = 2048, 512


def strips(pixels, tiling):
    y, x = tiling.y, tiling.x
    beyond = (0, y.padded - y.size), (0, x.padded - x.size), (0, 0)
    padded = np.pad(pixels, beyond, mode="reflect")
    for row in range(y.count):
        yield Strip(row, padded[y.start(row) : y.start(row) + y.tile], None)


def tiled(model, pixels, overlap, guard):
    height, width, _ = pixels.shape
    tiling = Tiling.over(height=height, width=width, tile=TILE, overlap=overlap, guard=guard)
    plan, clock = make_plan("cpu"), Clock()
    tiles = infer(model, strips(pixels, tiling), tiling, plan, clock)
    return np.concatenate(list(blend(tiles, tiling, len(model.card.classes), plan.device, clock)))


@torch.inference_mode()
def untiled(model, pixels):
    mean = np.array([b.mean for b in model.card.bands], np.float32)
    std = np.array([b.std for b in model.card.bands], np.float32)
    x = torch.from_numpy((pixels.astype(np.float32) - mean) / std).permute(2, 0, 1)[None]
    return model.net(x)[0].max(0).indices.numpy()


def main(image, name):
    model = load_model(name)
    with rasterio.open(image) as raster:
        size = min(SIZE, raster.height // 32 * 32), min(SIZE, raster.width // 32 * 32)
        pixels = raster.read([1, 2, 3], window=Window(0, 0, size[1], size[0]))
    pixels = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    reference = untiled(model, pixels)
    guards = [0, 8, 16, 24, 32, 48, 64, 96, 112]
    # the raster's own right and bottom rim, where padding differs, is left out
    inner = slice(0, size[0] - model.net.halo), slice(0, size[1] - model.net.halo)
    print(f"{model.card.name}, {size[1]} x {size[0]} px of {Path(image).name}\n")
    print("| overlap | " + " | ".join(f"guard {g}" for g in guards) + " |")
    print("|" + "--:|" * (len(guards) + 1))
    for overlap in (64, 128, 192, 256):
        cells = []
        for guard in guards:
            if 2 * guard > overlap:
                cells.append("")
                continue
            mask = tiled(model, pixels, overlap, guard)
            cells.append(f"{(mask[inner] != reference[inner]).mean():.1e}")
        print(f"| {overlap} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
