"""pytorch-toolbelt's tile merger, pyramid weights: `python toolbelt_merger.py IMAGE MODEL MASK`.

As its README does: slice, integrate batches, merge, crop, argmax; but tiles are cut one by one
(`iter_split`), not all at once, which saves it memory.
"""

import sys
import types
from itertools import islice

import numpy as np
import torch
from files import BATCH, OVERLAP, TILE, labels, normalised, time_it

try:
    import torchvision.ops  # noqa: F401
except (ImportError, RuntimeError):  # absent, or built for another torch
    # the package imports it, its tile merger does not use it
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    sys.modules["torchvision"] = types.ModuleType("torchvision")
    sys.modules["torchvision.ops"] = ops = types.ModuleType("torchvision.ops")
    ops.box_iou = None

from pytorch_toolbelt.inference.tiles import ImageSlicer, TileMerger


def segment(pixels, model):
    image = np.ascontiguousarray(pixels.transpose(1, 2, 0))  # (height, width, bands)
    slicer = ImageSlicer(image.shape, (TILE, TILE), (TILE - OVERLAP,) * 2, weight="pyramid")
    merger = TileMerger(slicer.target_shape, len(model.card.classes), slicer.weight)
    tiles = slicer.iter_split(image)
    while batch := list(islice(tiles, BATCH)):
        x = normalised(np.stack([tile for tile, _ in batch]), model.card).permute(0, 3, 1, 2)
        merger.integrate_batch(model.net(x), [place for _, place in batch])
    logits = merger.merge_()  # (classes, height, width), in place
    return slicer.crop_to_orignal_size(labels(logits))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    time_it(segment)
