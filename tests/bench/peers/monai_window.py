"""MONAI's sliding window, gaussian weights: `python monai_window.py IMAGE MODEL MASK [--buffered]`.

As its users do: the image as one tensor, the logits as another, argmax. With --buffered, MONAI
puts slabs of windows together before it adds them to the whole.
"""

import sys

from files import BATCH, OVERLAP, TILE, labels, normalised, time_it
from monai.inferers import sliding_window_inference

BUFFERED = {"buffer_steps": 4, "buffer_dim": -1}


def segment(pixels, model):
    logits = sliding_window_inference(
        normalised(pixels, model.card)[None],
        (TILE, TILE),
        BATCH,
        model.net,
        overlap=OVERLAP / TILE,
        mode="gaussian",
        **(BUFFERED if "--buffered" in sys.argv else {}),
    )
    return labels(logits[0])


if __name__ == "__main__":
    time_it(segment)
