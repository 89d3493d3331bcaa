"""Draw the way of a pixel through the engine, and a raster cut in swaths and parts.

python drawing.py -o PICTURE
"""

import argparse
from itertools import pairwise

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch, Rectangle
from PIL import Image

WIDTH, HEIGHT = 900, 650  # px on a page; the file has twice as many
INK, PALE = "#222222", "#777777"
READ, INFER, WRITE = "#dbe9f6", "#fde8d0", "#dcefdc"
DONE, WORK, WARM = "#8cc68c", "#ffd966", "#f2a65e"
BANDS = ("#f4f8fc", "#fef8f0", "#f4faf4")  # behind a stage


def box(ax, x, y, w, h, text="", fill="white", size=9, edge=INK, **more):
    """Draw a box with text in its middle; x, y is its lower left corner."""
    ax.add_patch(Rectangle((x, y), w, h, facecolor=fill, edgecolor=edge, linewidth=0.9, **more))
    ax.text(x + w / 2, y + h / 2, text, ha="center", va="center", size=size, color=INK)


def arrow(ax, start, end):
    style = {"arrowstyle": "-|>", "mutation_scale": 9, "color": INK, "linewidth": 0.9}
    ax.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, **style))


def text(ax, x, y, words, size=9, color=INK, **more):
    ax.text(x, y, words, size=size, color=color, va="top", linespacing=1.35, **more)


def stage(ax, x, w, title, who, band, holds):
    """Draw the frame of a stage, its title, and what it holds in memory."""
    ax.add_patch(Rectangle((x, 308), w, 332, facecolor=band, edgecolor=PALE, linewidth=0.8))
    text(ax, x + 8, 632, title, size=11, weight="bold")
    text(ax, x + 8, 614, who, color=PALE)
    text(ax, x + 8, 390, "holds", color=PALE)
    text(ax, x + 8, 375, holds)


def queue(ax, x, words):
    """Draw a queue between two stages."""
    arrow(ax, (x - 4, 500), (x + 6, 500))
    box(ax, x + 6, 484, 26, 32, "1", "white", size=11)
    arrow(ax, (x + 32, 500), (x + 42, 500))
    ax.text(x + 19, 478, words, ha="center", va="top", size=8.5, color=INK, linespacing=1.25)
    ax.text(x + 19, 521, "queue", ha="center", va="bottom", size=8.5, color=PALE)


def pixels_way(ax):
    """Draw raster, reader, inference, writer, files."""
    box(ax, 10, 440, 84, 130)
    box(ax, 10, 500, 84, 26, "strip", READ)
    text(ax, 52, 590, "raster", size=11, weight="bold", ha="center")
    text(ax, 52, 432, "any height;\nread from\ntop to bottom", ha="center")

    stage(ax, 119, 151, "1  read", "one thread", BANDS[0], "2 strips,\nGDAL's blocks")
    arrow(ax, (94, 513), (119, 513))
    box(ax, 127, 540, 135, 46, "the new rows:\neach pixel once", READ)
    arrow(ax, (194, 540), (194, 522))
    box(ax, 127, 476, 135, 46, "strip: tile rows\nx columns of swath", READ)
    text(ax, 127, 462, "The overlap's rows\nare kept from the\nstrip before.")

    queue(ax, 274, "strip")

    holds = (
        "1 strip, workers + 1 batches, maps for each\n"
        "worker, one row of open junctions (float32:\n"
        "classes x ramp x columns)"
    )
    stage(ax, 320, 290, "2  infer", "one thread and its workers", BANDS[1], holds)
    box(ax, 330, 550, 270, 34, "tiles, in batches of one shape", INFER)
    for k, name in enumerate(("worker: net", "worker: net", "or a GPU")):
        arrow(ax, (374 + 91 * k, 550), (374 + 91 * k, 530))
        box(ax, 330 + 91 * k, 502, 88, 28, name, INFER)
        arrow(ax, (374 + 91 * k, 502), (374 + 91 * k, 482))
    box(ax, 330, 454, 270, 28, "logits: they never leave the device", INFER)
    arrow(ax, (465, 454), (465, 438))
    words = "blender: what no other tile touches is\nlabelled at once; junctions stay open"
    box(ax, 330, 398, 270, 40, words, INFER)

    queue(ax, 614, "rows")

    holds = "rows of one row of tiles,\n256 rows of each output"
    stage(ax, 660, 230, "3  write", "the calling thread", BANDS[2], holds)
    box(ax, 670, 550, 210, 34, "finished rows: class values", WRITE)
    arrow(ax, (775, 550), (775, 532))
    box(ax, 670, 484, 210, 48, "part files in mask.tif.parts/\nrename, read back, fsync", DONE)
    arrow(ax, (700, 484), (700, 454))
    text(ax, 708, 476, "when all are there", color=PALE)
    box(ax, 670, 406, 210, 48, "whole file: mask.tif\nread back, fsync, rename", WRITE)


def raster_in_parts(ax):
    """Draw two swaths of parts: finished, in work, to come."""
    left, seam, right, rows = 30, 190, 310, (250, 196, 142, 88, 34)
    text(ax, 30, 288, "The raster from above: 2 swaths, 8 parts", size=11, weight="bold")
    for top, bottom in pairwise(rows):
        box(ax, left, bottom, seam - left, top - bottom, "", DONE)
        box(ax, seam, bottom, right - seam, top - bottom, "", DONE if top == rows[0] else "white")
    box(ax, seam, rows[2], right - seam, rows[1] - rows[2], "", WORK)
    side, step, reach = 34, 26, 24
    x0, y0 = seam - reach, rows[1] + reach - side  # of the first tile of the part in work
    tiles = [(x0 + step * k, y0) for k in range(6)] + [(x0, y0 - step * k) for k in (1, 2)]
    for x, y in tiles:  # the last one of the row goes on beyond the rim
        ax.add_patch(Rectangle((x, y), side, side, facecolor=WARM))
    for x, y in tiles:
        ax.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor=INK, linewidth=0.7))
    ax.plot([seam, seam], [26, 258], color=INK, linewidth=1.8)
    ax.annotate("", (left, 20), (seam, 20), arrowprops={"arrowstyle": "<->", "color": INK})
    text(ax, 110, 17, "swath", ha="center")

    rows_of_words = [
        (DONE, "finished part", "On the disk, its CRC-32 in its name. No kill touches it."),
        (WORK, "part in work", "All that kill -9 or a power cut costs."),
        (
            WARM,
            "warm-up tiles",
            "They reach in from above and from the left: inferred\n"
            "again, so the part is the same as without any cut.",
        ),
        ("white", "part to come", "The same command goes on here."),
    ]
    y = 262
    for fill, name, words in rows_of_words:
        box(ax, 350, y - 16, 22, 16, "", fill)
        text(ax, 382, y, name, weight="bold")
        text(ax, 490, y, words)
        y -= 42 if "\n" in words else 30
    text(ax, 350, 118, "swath", weight="bold")
    words = (
        "Columns in work at a time: all, if memory allows. What a run\n"
        "holds is as wide as a swath and a few rows of tiles high. So\n"
        "--max-memory bounds a swath's width; height costs nothing."
    )
    text(ax, 490, 118, words)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", required=True)
    args = parser.parse_args()
    figure = plt.figure(figsize=(WIDTH / 100, HEIGHT / 100))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    ax.axis("off")
    pixels_way(ax)
    raster_in_parts(ax)
    figure.savefig(args.output, dpi=200)
    with Image.open(args.output) as drawn:  # few colours: a third of the bytes
        few = drawn.convert("RGB").quantize(48)
    few.save(args.output, optimize=True)


if __name__ == "__main__":
    main()
