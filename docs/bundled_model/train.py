"""Train the bundled buildings model from the three training orthophotos of the buildings data.

    python docs/bundled_model/train.py DATA/train -o buildings.safetensors

Everything is fixed beforehand (README.md beside this file); the test images are never opened.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import rasterio
import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fcntile.models.card import Band, Card, ModelClass
from fcntile.models.fcn import fcn8s
from fcntile.models.model_file import save_model

OPTIONS = {"width": 12, "head": 32, "batch_norm": True, "dropout": 0.1}
CROP, BATCH, WARM_UP, LEARNING_RATE = 256, 8, 200, 3e-3


def read_pairs(folder):
    """Return [(image (3, H, W) uint8, labels (H, W) uint8)], one pair a raster."""
    pairs = []
    for labels in sorted(Path(folder).glob("*_label.tif")):
        with rasterio.open(labels) as y, rasterio.open(str(labels).replace("_label", "")) as x:
            pairs.append((torch.from_numpy(x.read([1, 2, 3])), torch.from_numpy(y.read(1))))
    return pairs


def split(pairs, held_out):
    """Cut the last quarter (by columns) off each raster; return it, or the rest."""
    cut = [3 * y.shape[1] // 4 for _, y in pairs]
    return [
        (x[..., c:], y[..., c:]) if held_out else (x[..., :c], y[..., :c])
        for c, (x, y) in zip(cut, pairs, strict=True)
    ]


def sample(pairs, weights, rng):
    """Return one augmented crop: (3, CROP, CROP) in [0, 1] and its labels."""
    x, y = pairs[rng.choice(len(pairs), p=weights)]
    height, width = y.shape
    scale = math.exp(rng.uniform(math.log(0.7), math.log(1.45)))
    angle = rng.uniform(0, 2 * math.pi)
    half = CROP * scale / 2
    r, c = rng.uniform(0, height), rng.uniform(0, width)
    cos, sin = math.cos(angle) * half, math.sin(angle) * half
    flip = rng.choice([-1, 1])
    # output (-1..1) -> pixel offsets around (c, r) -> a window that holds them all
    reach = math.ceil(1.5 * half) + 2
    r0, r1 = max(0, int(r) - reach), min(height, int(r) + reach)
    c0, c1 = max(0, int(c) - reach), min(width, int(c) + reach)
    h, w = r1 - r0, c1 - c0
    theta = torch.tensor(
        [
            [flip * cos * 2 / w, -sin * 2 / w, (c - c0) * 2 / w - 1],
            [flip * sin * 2 / h, cos * 2 / h, (r - r0) * 2 / h - 1],
        ],
        dtype=torch.float32,
    )
    grid = F.affine_grid(theta[None], [1, 3, CROP, CROP], align_corners=False)
    image = F.grid_sample(
        x[None, :, r0:r1, c0:c1].float() / 255, grid, padding_mode="reflection", align_corners=False
    )[0]
    labels = (y[None, None, r0:r1, c0:c1].float() - 255).contiguous()  # outside becomes 255
    labels = F.grid_sample(labels, grid, mode="nearest", align_corners=False)[0, 0] + 255
    return jitter(image, rng), labels.round().long()


def jitter(image, rng):
    """Change brightness, contrast, colour balance and gamma; blur or add noise now and then."""
    gray = image.mean(0, keepdim=True)
    image = gray + (image - gray) * rng.uniform(0.5, 1.4)
    image = image * torch.from_numpy(rng.uniform(0.85, 1.15, (3, 1, 1))).float()
    image = (image - image.mean()) * rng.uniform(0.7, 1.4) + image.mean() + rng.uniform(-0.12, 0.12)
    image = image.clamp(0.001, 1) ** math.exp(rng.uniform(-0.3, 0.3))
    if rng.random() < 0.2:
        image = F.avg_pool2d(image, 3, 1, 1)
    if rng.random() < 0.2:
        image = image + torch.randn_like(image) * 0.03
    return image.clamp(0, 1)


def loss_of(logits, y):
    """Cross-entropy plus soft dice of the building class; 255 is ignored."""
    valid = y != 255
    p = logits.softmax(1)[:, 1][valid]
    t = (y[valid] == 1).float()
    dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
    return F.cross_entropy(logits, y, ignore_index=255) + 0.5 * dice


@torch.inference_mode()
def scores(net, pairs, mean, std):
    """Return mIoU, per-class IoU and pixel accuracy over whole rasters, pooled."""
    confusion = np.zeros((2, 2), np.int64)
    for x, y in pairs:
        h, w = y.shape
        x = (x[None].float() / 255 - mean) / std
        x = F.pad(x, (0, -w % 32, 0, -h % 32), mode="reflect")
        mask = torch.empty(h, w, dtype=torch.long)
        for c in range(0, w, 768):  # in columns with 256 px of context, to bound memory
            a, b = max(0, c - 256), min(x.shape[3], c + 1024)
            logits = net(x[..., a:b])[0, :, :h]
            mask[:, c : c + 768] = logits.max(0).indices[:, c - a : c - a + min(768, w - c)]
        valid = y != 255
        confusion += np.bincount((2 * y[valid].long() + mask[valid]).numpy(), minlength=4).reshape(
            2, 2
        )
    hit = np.diag(confusion)
    iou = hit / (confusion.sum(0) + confusion.sum(1) - hit)
    return {"miou": iou.mean(), "iou": iou.tolist(), "accuracy": hit.sum() / confusion.sum()}


def card(mean, std, args, step):
    """Return the card of the model after `step` steps."""
    bands = zip(("red", "green", "blue"), mean.flatten(), std.flatten(), strict=True)
    return Card(
        name="buildings",
        arch="fcn8s",
        arch_options=OPTIONS,
        bands=tuple(Band(name, 255 * m.item(), 255 * s.item()) for name, m, s in bands),
        dtype="uint8",
        classes=(ModelClass("background", "#000000"), ModelClass("building", "#e6194b")),
        resolution=0.149,
        training={
            "data": "orthophotos and building polygons of hotosm/fAIr-utilities@61f1515 "
            "(Tanzania, Uganda, Philippines), zoom 20",
            "script": "docs/bundled_model/train.py",
            "seed": args.seed,
            "steps": step,
        },
        licence="CC-BY-4.0 (imagery), ODbL-1.0 (labels)",
        attribution="imagery OpenAerialMap contributors, labels OpenStreetMap contributors",
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hold-out", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)

    pairs = read_pairs(args.data)
    held = split(pairs, True) if args.hold_out else []
    pairs = split(pairs, False) if args.hold_out else pairs
    pixels = torch.cat([x[:, y != 255] for x, y in pairs], 1).float() / 255
    mean, std = pixels.mean(1).view(1, 3, 1, 1), pixels.std(1).view(1, 3, 1, 1)
    weights = np.array([y.numel() ** 0.5 for _, y in pairs])
    weights /= weights.sum()

    net = fcn8s(3, 2, **OPTIONS).to(memory_format=torch.channels_last)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.998), use_buffers=True)
    decay = [p for p in net.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in net.parameters() if p.requires_grad and p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0}],
        lr=LEARNING_RATE,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min(1, (s + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * s / args.steps)),
    )
    start, running = time.time(), 0.0
    for step in range(1, args.steps + 1):
        crops = [sample(pairs, weights, rng) for _ in range(BATCH)]
        x = (torch.stack([c[0] for c in crops]) - mean) / std
        y = torch.stack([c[1] for c in crops])
        loss = loss_of(net(x.contiguous(memory_format=torch.channels_last)), y)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step > args.steps // 4:  # before, the average would remember the random start
            average.update_parameters(net)
        running = 0.98 * running + 0.02 * loss.item()
        if step % 250 == 0 or step == args.steps:
            average.eval()
            row = {"step": step, "seconds": round(time.time() - start), "loss": round(running, 4)}
            if held:
                row |= {"held_out": scores(average.module, held, mean, std)}
            print(json.dumps(row), flush=True)
            save_model(args.output, average.module, card(mean, std, args, step))


if __name__ == "__main__":
    main()
