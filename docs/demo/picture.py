"""Draw an image, its mask and its labels side by side, and print how well they agree.

python picture.py IMAGE MASK LABELS -o PICTURE
"""

import argparse
from pathlib import Path

import numpy as np
import rasterio
from skimage.color import label2rgb
from skimage.io import imsave

NODATA = 255
MARGIN = 8


def read(path, bands):
    with rasterio.open(path) as raster:
        return raster.read(bands), raster.colormap(1) if raster.count == 1 else None


def over(image, mask, colormap):
    """Return the image, (H, W, 3) in 0-1, with the classes above 0 laid over it."""
    colors = [np.array(colormap[k][:3]) / 255 for k in range(1, NODATA)]
    shown = np.where(mask == NODATA, 0, mask)
    return label2rgb(
        shown, image, colors=colors, alpha=0.5, bg_label=0, bg_color=None, saturation=1
    )


def scores(mask, labels):
    """Return the IoU of each class and the pixel accuracy, over labelled pixels."""
    seen = (labels != NODATA) & (mask != NODATA)
    mask, labels = mask[seen], labels[seen]
    iou = [
        ((mask == k) & (labels == k)).sum() / ((mask == k) | (labels == k)).sum()
        for k in np.unique(labels)
    ]
    return iou, (mask == labels).mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("mask")
    parser.add_argument("labels")
    parser.add_argument("-o", "--output", required=True, type=Path)
    args = parser.parse_args()

    pixels, _ = read(args.image, [1, 2, 3])
    mask, colormap = read(args.mask, 1)
    labels, _ = read(args.labels, 1)
    image = pixels.transpose(1, 2, 0) / 255
    gap = np.ones((len(image), MARGIN, 3))
    panels = [image, gap, over(image, mask, colormap), gap, over(image, labels, colormap)]
    imsave(args.output, (255 * np.concatenate(panels, axis=1)).astype(np.uint8))

    iou, accuracy = scores(mask, labels)
    print(f"{args.output}: the image, the mask over it, the labels over it")
    print(f"mIoU {np.mean(iou):.3f} (by class {', '.join(f'{v:.3f}' for v in iou)}), ", end="")
    print(f"pixel accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
