"""Export a model to ONNX, with the keys by which GeoDeep knows what it is.

    python export_onnx.py MODEL OUTPUT

GeoDeep feeds pixels / 255, so normalisation is part of the exported net. It takes scores below
`seg_thresh` for background: here none are, and its removal of small segments is off. (Its median
filter cannot be turned off.)
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import nets  # noqa: F401
import onnx
import torch
from torch import nn

from fcntile.models.model_file import load_model

TILE, OVERLAP = 512, 25  # px, %


class FromUnitPixels(nn.Module):
    """A net that takes pixels of 0 to 1: (1, bands, tile, tile) -> logits."""

    def __init__(self, model):
        super().__init__()
        bands = model.card.bands
        self.net = model.net
        self.register_buffer("scale", torch.tensor([255 / b.std for b in bands])[:, None, None])
        self.register_buffer("shift", torch.tensor([b.mean / b.std for b in bands])[:, None, None])

    def forward(self, x):
        return self.net(x * self.scale - self.shift)


def main(name, output):
    model = load_model(name)
    example = torch.zeros(1, len(model.card.bands), TILE, TILE)
    exported = FromUnitPixels(model).eval()
    torch.onnx.export(exported, (example,), output, dynamo=False, opset_version=17)
    made = onnx.load(output)
    keys = {
        "model_type": json.dumps("Segmentor"),
        "class_names": json.dumps({str(i): c.name for i, c in enumerate(model.card.classes)}),
        "resolution": "0.01",  # cm/px; finer than any raster, so that none is resampled
        "tiles_size": str(TILE),
        "tiles_overlap": str(OVERLAP),
        "seg_thresh": "-1e30",
        "seg_small_segment": "0",
    }
    onnx.helper.set_model_props(made, keys)
    onnx.save(made, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
