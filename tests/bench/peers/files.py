"""What every peer's script does before and after: read all of a raster, write a mask."""

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import nets  # noqa: F401
import numpy as np
import rasterio
import torch

from fcntile.models.model_file import load_model

TILE, OVERLAP, BATCH = 512, 128, 4


def read(image):
    """Return pixels (bands, height, width) and where they lie."""
    with rasterio.open(image) as raster:
        return raster.read(), {"crs": raster.crs, "transform": raster.transform}


def normalised(pixels, card):
    """Return float32 pixels, normalised, of the bands-first or bands-last shape they have."""
    shape = (-1, 1, 1) if pixels.shape[0] == len(card.bands) else (-1,)
    x = torch.from_numpy(np.ascontiguousarray(pixels)).float()
    x -= torch.tensor([b.mean for b in card.bands]).view(shape)
    x /= torch.tensor([b.std for b in card.bands]).view(shape)
    return x


def write(path, mask, place):
    height, width = mask.shape
    size = {"width": width, "height": height, "count": 1, "dtype": "uint8"}
    options = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    with rasterio.open(path, "w", driver="GTiff", **size, **options, **place) as out:
        out.write(mask, 1)


def labels(logits):
    """Return the labels (height, width) of logits (classes, height, width).

    By argmax, as the examples of these libraries do; on CPUs it takes four times as long as
    `max(0).indices`, which `--quick-labels` takes instead.
    """
    if "--quick-labels" in sys.argv:
        return logits.max(0).indices.to(torch.uint8).numpy()
    return logits.argmax(0).to(torch.uint8).numpy()


def time_it(segment):
    """Run `segment(pixels, model) -> mask` as a whole program: IMAGE MODEL MASK."""
    image, name, output = sys.argv[1:4]
    start = time.perf_counter()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = load_model(name)
    pixels, place = read(image)
    with torch.inference_mode():
        mask = segment(pixels, model)
    write(output, mask, place)
    print(json.dumps({"seconds": time.perf_counter() - start}))
