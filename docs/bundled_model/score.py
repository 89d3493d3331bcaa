"""Score a model on test orthophotos through `predict`, and write the scores into its card.

python docs/bundled_model/score.py DATA/test buildings.safetensors
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio

from fcntile.models.model_file import load_model, save_model
from fcntile.predict import predict

NODATA = 255


def confusion_of(mask, labels, classes):
    """Return (classes, classes) counts: rows are labels, columns the mask."""
    seen = (labels != NODATA) & (mask != NODATA)
    pairs = classes * labels[seen].astype(np.int64) + mask[seen]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def scores(confusion):
    hit = np.diag(confusion)
    iou = hit / (confusion.sum(0) + confusion.sum(1) - hit)
    return {
        "miou": round(iou.mean(), 4),
        "iou": [round(v, 4) for v in iou.tolist()],
        "pixel_accuracy": round(hit.sum() / confusion.sum(), 4),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    args = parser.parse_args()
    model = load_model(args.model)
    classes = len(model.card.classes)
    total, rows = np.zeros((classes, classes), np.int64), {}
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(args.data.glob("*_label.tif")):
            name = path.name.replace("_label", "")
            mask = Path(folder) / name
            predict(str(path.with_name(name)), mask, model=args.model)
            with rasterio.open(mask) as m, rasterio.open(path) as y:
                confusion = confusion_of(m.read(1), y.read(1), classes)
            total += confusion
            rows[path.stem.replace("_label", "")] = scores(confusion)
    rows["together"] = scores(total)
    print(json.dumps(rows, indent=1))
    training = {**model.card.training, "scores": rows["together"]}
    save_model(args.model, model.net, replace(model.card, training=training))


if __name__ == "__main__":
    main()
