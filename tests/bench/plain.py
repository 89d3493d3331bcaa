"""The script one would write: read all, infer tile by tile, blend in memory, argmax, write.

python plain.py IMAGE MODEL MASK
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import nets  # noqa: F401
import numpy as np
import rasterio
import torch

from fcntile.models.model_file import load_model

TILE, OVERLAP = 512, 128
STRIDE = TILE - OVERLAP


@torch.inference_mode()
def main(image, name, output):
    start = time.perf_counter()
    model = load_model(name)
    with rasterio.open(image) as raster:
        pixels = raster.read()
        profile = {"crs": raster.crs, "transform": raster.transform}
    height, width = pixels.shape[1:]
    mean = np.array([b.mean for b in model.card.bands], np.float32)[:, None, None]
    std = np.array([b.std for b in model.card.bands], np.float32)[:, None, None]
    starts = [
        [min(i * STRIDE, size - TILE) for i in range(-(-(size - OVERLAP) // STRIDE))]
        for size in (height, width)
    ]
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(OVERLAP) + 0.5) / OVERLAP)
    side = np.concatenate([ramp, np.ones(TILE - 2 * OVERLAP), ramp[::-1]])
    weight = torch.from_numpy(np.outer(side, side).astype(np.float32))

    total = torch.zeros(len(model.card.classes), height, width)
    weights = torch.full((height, width), 1e-8)
    for y in starts[0]:
        for x in starts[1]:
            tile = (pixels[:, y : y + TILE, x : x + TILE].astype(np.float32) - mean) / std
            logits = model.net(torch.from_numpy(tile)[None])[0]
            total[:, y : y + TILE, x : x + TILE] += logits * weight
            weights[y : y + TILE, x : x + TILE] += weight
    mask = (total / weights).argmax(0).numpy().astype(np.uint8)
    with rasterio.open(
        output,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=1,
        dtype="uint8",
        tiled=True,
        compress="deflate",
        **profile,
    ) as out:
        out.write(mask, 1)
    print(json.dumps({"seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main(*sys.argv[1:])
