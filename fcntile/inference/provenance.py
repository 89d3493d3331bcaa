"""How a run's outputs are made: told to those who resume it, and to those who find them."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rasterio.windows import Window

import fcntile
from fcntile.inference.job import Job
from fcntile.inference.products import LEVELS, Product
from fcntile.models.model_file import Model
from fcntile.raster.outputs import NODATA, Output, mask_dtype
from fcntile.raster.vectors import read_features


def facts_of(job: Job, model: Model, stitch: str, extent: Window) -> dict[str, Any]:
    """Return what decides the pixels of a run, beside those of the raster."""
    tiling, plan = job.tiling, job.plan
    facts = {
        "fcntile": fcntile.__version__,
        "torch": torch.__version__,
        "model": model.sha256,
        "bands": list(job.bands),
        "stitch": stitch,
        "tile": tiling.tile,
        "overlap": tiling.overlap,
        "guard": tiling.guard,
        "precision": str(plan.precision).removeprefix("torch."),
        "batch_size": plan.batch_size,
        "device": plan.device.type,
        "outputs": [[p.name, str(p.dtype).removeprefix("torch."), p.is_half] for p in job.products],
        "window": list(extent.flatten()),
    }
    if job.threshold:
        facts["threshold"] = asdict(job.threshold)
    if job.area:
        area = read_features(job.area, what="polygons")
        facts["aoi"] = f"{zlib.crc32(repr((area.crs.to_wkt(), area.geometries)).encode()):08x}"
    return facts


def outputs_of(
    job: Job, model: Model, paths: Mapping[str, Path], facts: Mapping[str, Any]
) -> list[Output]:
    """Return the files that a run makes.

    Args:
        job: what is run.
        model: that it names.
        paths: of the outputs, by product.
        facts: what decides their pixels.
    """
    told = ("stitch", "tile", "overlap", "guard", "precision", "batch_size", "bands", "threshold")
    tags = {
        "TIFFTAG_SOFTWARE": f"fcntile {fcntile.__version__}",
        "FCNTILE_MODEL": model.card.name,
        "FCNTILE_MODEL_SHA256": model.sha256,
        "FCNTILE_MODEL_ATTRIBUTION": model.card.attribution,
        "FCNTILE_OPTIONS": json.dumps({key: facts[key] for key in told if key in facts}),
    }
    return [_output(product, model, paths[product.name], tags) for product in job.products]


def _output(product: Product, model: Model, path: Path, tags: Mapping[str, str]) -> Output:
    card = model.card
    if product.name == "mask":
        dtype = mask_dtype(card.values)
        classes = [(v, c.name, c.rgb) for v, c in zip(card.values, card.classes, strict=True)]
        return Output("mask", path, dtype, NODATA[dtype], ("class",), tags, classes)
    names = tuple(c.name for c in card.classes)
    is_scaled = product.dtype == torch.uint8
    return Output(
        product.name,
        path,
        "uint8" if is_scaled else "float32",
        product.nodata,
        names
        if product.bands > 1 or product.name in ("probabilities", "logits")
        else (product.name,),
        tags,
        scale=1 / LEVELS if is_scaled else 1,
        offset=-1 / LEVELS if is_scaled else 0,
        is_half=product.is_half,
    )
