"""The script one would write: infer tile by tile, blend in memory, argmax: IMAGE MODEL MASK."""

import numpy as np
import torch
from files import OVERLAP, TILE, labels, time_it

STRIDE = TILE - OVERLAP


def segment(pixels, model):
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
    return labels(total / weights)


if __name__ == "__main__":
    time_it(segment)
