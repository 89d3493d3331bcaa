"""Count the labels that tiling changes, by taper and overlap: the tables of docs/seams.md.

    python tests/bench/seams.py NET IMAGE... --overlaps 64 128 192 256

NET is a model file, a bundled model, or one of `RANDOM`, nets with random weights. The first three
bands of each image are cut into blocks of up to 2048 x 2048 px. A block is completed to whole tiles
by reflection, as `fcntile predict` does it, and goes through the net twice: whole, which is the
reference, and in tiles. Both see the same pixels and the same zero padding around them, so labels
differ because of seams alone, up to the rim. The logits of a tile are computed once and blended by
every taper. The untiled pass of fcn8s takes 5 GB.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import rasterio
import torch
from nets import save_test_model
from rasterio.windows import Window
from tapers import HANN, TILE, Taper, tapers
from torch import Tensor, nn

from fcntile.inference.tiling import Axis
from fcntile.models.layers import fold_batch_norm
from fcntile.models.model_file import load_model

RANDOM = {"probe": 6, "fcn8s": 21}  # nets with random weights, and their classes
BLOCK = 2048


def labels(tiles: dict[tuple[int, int], Tensor], y: Axis, x: Axis, taper: Taper) -> Tensor:
    """Blend the logits of tiles and return the best class of each pixel, (y.size, x.size) uint8."""
    window = taper.window(y.overlap)

    def along(axis: Axis, k: int) -> Tensor:
        weights = window.clone()
        if not taper.least:  # at the rim there is no other tile to trust more
            weights[: axis.overlap if k == 0 else 0] = 1
            weights[TILE - axis.overlap if k == axis.count - 1 else TILE :] = 1
        return weights

    weights = {
        (row, column): torch.outer(along(y, row), along(x, column)).clamp(min=taper.least).float()
        for row, column in tiles
    }

    def blended(k: int) -> Tensor:
        total = torch.zeros(y.padded, x.padded)
        for (row, column), logits in tiles.items():
            top, left = y.start(row), x.start(column)
            place = total[top : top + TILE, left : left + TILE]
            place.addcmul_(logits[k], weights[row, column])
        return total[: y.size, : x.size]

    return best(blended(k) for k in range(len(tiles[0, 0])))


def best(logits: Iterable[Tensor]) -> Tensor:
    """Return the position of the highest logit, (H, W) uint8, from those of each class, (H, W)."""
    classes = iter(logits)
    highest = next(classes).clone()
    found = torch.zeros(highest.shape, dtype=torch.uint8)
    for k, values in enumerate(classes, 1):
        found = torch.where(values > highest, k, found)
        torch.maximum(highest, values, out=highest)
    return found


@dataclass(frozen=True)
class Subject:
    """A net to measure.

    Args:
        net: (1, bands, H, W) normalised -> (1, classes, H, W).
        mean: of the bands, (bands, 1, 1).
        std: likewise.
        halo: of the net in pixels, or None.
    """

    net: Callable[[Tensor], Tensor]
    mean: Tensor
    std: Tensor
    halo: int | None


def compare(subject: Subject, pixels: Tensor, overlap: int) -> dict[str, int]:
    """Return how many labels differ from the untiled forward pass, by taper.

    Beside them is the count of the commonest label: where a net says but one, nothing can differ.

    Args:
        subject: the net.
        pixels: (bands, H, W).
        overlap: of tiles, in pixels.
    """
    y, x = (Axis(size, TILE, overlap) for size in pixels.shape[1:])
    beyond = (0, 0), (0, y.padded - y.size), (0, x.padded - x.size)
    whole = np.pad(((pixels - subject.mean) / subject.std).numpy(), beyond, mode="reflect")
    padded = torch.from_numpy(whole)[None].to(memory_format=torch.channels_last)
    untiled = best(subject.net(padded)[0, :, : y.size, : x.size])
    tiles = {}
    for row in range(y.count):
        for column in range(x.count):
            beside = padded[:, :, y.start(row) :, x.start(column) :]
            tiles[row, column] = subject.net(beside[:, :, :TILE, :TILE])[0].contiguous()
    found = {"commonest label": int(untiled.flatten().bincount().max())}
    for name, taper in tapers(overlap, subject.halo).items():
        found[name] = int((labels(tiles, y, x, taper) != untiled).sum())
    return found


def load(path: str | Path) -> Subject:
    """Return the net of a model file."""
    model = load_model(path)
    mean, std = ([getattr(b, key) for b in model.card.bands] for key in ("mean", "std"))
    net = fold_batch_norm(model.net).to(memory_format=torch.channels_last)
    column = torch.tensor([mean, std])[:, :, None, None]
    return Subject(net, column[0], column[1], model.net.halo)


def load_random(name: str, seed: int, he: bool, views: list[Tensor]) -> Subject:
    """Return a net with random weights whose classes all occur.

    As it is made, such a net gives everything the class of the highest bias. So the mean logit of
    each class over some pixels is taken off, which is no more than other biases of the scores.

    Args:
        name: one of `RANDOM`.
        seed: of the weights.
        he: draw kernels as He et al. (arXiv 1502.01852) do, with biases of 0, so that what the net
            makes of pixels outweighs what its biases make of the zero padding; else as torch does.
        views: pixels for the means, (bands, TILE, TILE) each.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/{name}.safetensors"
        made = load(save_test_model(file, name, seed=seed, classes=RANDOM[name]))
    torch.manual_seed(seed)
    for layer in made.net.modules() if he else ():
        if type(layer) is nn.Conv2d:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    logits = [made.net(((view - made.mean) / made.std)[None]) for view in views]
    middle = torch.cat(logits).mean((0, 2, 3))[:, None, None]
    return Subject(lambda x: made.net(x) - middle, made.mean, made.std, made.halo)


def blocks(image: Path, most: int) -> dict[str, Tensor]:
    """Return the first blocks of an image, (bands, H, W) float32, by name."""
    found: dict[str, Tensor] = {}
    with rasterio.open(image) as raster:
        for top in range(0, raster.height, BLOCK):
            for left in range(0, raster.width, BLOCK):
                height, width = min(BLOCK, raster.height - top), min(BLOCK, raster.width - left)
                if len(found) < most and max(height, width) > TILE:  # one tile has no seam
                    pixels = raster.read([1, 2, 3], window=Window(left, top, width, height))
                    found[f"{image.stem} {left},{top}"] = torch.from_numpy(pixels).float()
    return found


def report(found: list[dict]) -> None:
    """Print, as Markdown, the shares of all blocks together by overlap, then counts by block."""
    overlaps = sorted({one["overlap"] for one in found})
    print(f"| taper | {' | '.join(map(str, overlaps))} |\n|---|{'--:|' * len(overlaps)}")
    for name in found[0]["labels"]:
        cells = []
        for overlap in overlaps:
            here = [one for one in found if one["overlap"] == overlap]
            share = sum(o["labels"][name] for o in here) / sum(o["pixels"] for o in here)
            cells.append(f"{share:.3e}")
        print(f"| {name} | {' | '.join(cells)} |")
    for overlap in overlaps:
        here = [one for one in found if one["overlap"] == overlap]
        print(f"\n| {overlap} px | {' | '.join(o['block'] for o in here)} | all |")
        print("|---|" + "--:|" * (len(here) + 1))
        for name in found[0]["labels"]:
            counts = [o["labels"][name] for o in here]
            print(f"| {name} | {' | '.join(map(str, [*counts, sum(counts)]))} |")


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("net")
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--overlaps", type=int, nargs="+", default=[128])
    parser.add_argument("--blocks", type=int, default=1, help="of each image, at most")
    parser.add_argument("--seed", type=int, default=0, help="of random weights")
    parser.add_argument("--he", action="store_true", help="draw random weights as He et al. do")
    parser.add_argument("--json", type=Path, help="also write the counts there, block by block")
    args = parser.parse_args()
    named = {name: p for image in args.images for name, p in blocks(image, args.blocks).items()}
    if args.net in RANDOM:
        views = [p[:, :TILE, :TILE] for p in named.values() if min(p.shape[1:]) >= TILE]
        subject = load_random(args.net, args.seed, args.he, views)
    else:
        subject = load(args.net)
    found = []
    for name, pixels in named.items():
        for overlap in args.overlaps:
            counts = compare(subject, pixels, overlap)
            size = pixels[0].numel()
            found.append({"block": name, "overlap": overlap, "pixels": size, "labels": counts})
            print(f"{name}, {overlap} px, {HANN}: {counts[HANN]}", file=sys.stderr, flush=True)
            if args.json:
                args.json.write_text(json.dumps(found))
    report(found)


if __name__ == "__main__":
    main()
