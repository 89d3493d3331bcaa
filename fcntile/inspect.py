"""Model and window in, picture out: what a net does with the image, and how far it looks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from torch import Tensor

from fcntile.errors import InputError, check_range
from fcntile.files import check_apart, check_output
from fcntile.inference.checks import choose_bands, remark_on_resolution, remark_on_tile
from fcntile.inference.devices import exact_fp32, make_plan, out_of_memory
from fcntile.inference.inspection_windows import choose_window, field_window, recommend_overlap
from fcntile.models.card import Card
from fcntile.models.effective_field import EffectiveField, measure_field, spread_places
from fcntile.models.layers import fold_batch_norm
from fcntile.models.model_file import load_model
from fcntile.models.registry import Net, build_on_meta
from fcntile.models.stages import Stage, choose_stages, record
from fcntile.models.summary import Layer, layers
from fcntile.raster.gdal import files_of, open_raster
from fcntile.raster.reader import read_completed
from fcntile.training.figures import check_figure
from fcntile.training.inspection_figure import Row, draw_inspection, shade
from fcntile.training.loader import normalise
from fcntile.training.pictures import draw_classes, draw_image, shown_bands


@dataclass(frozen=True)
class Summary:
    """What was found in a net.

    Args:
        output: path of the picture.
        model: name on the model's card.
        window: column, row, width and height of the window shown, in px.
        stages: name, channels, height, width and stride of each stage, in the order of computation.
        effective_field_95: side in px of the square around a pixel of the mask with 95 % of the
            gradient of its logit.
        effective_field_99: likewise 99 %.
        receptive_field: the theoretical one, in px.
        field_window: column, row, width and height of the window they were measured in; no gradient
            is known beyond.
        recommended_overlap: px, twice the radius with 99 %, rounded up to the net's stride; half a
            tile at most.
        full_overlap: px, the same for tiles of any size.
        overlap: px, of the model's card.
        tile: px, of the model's card.
    """

    output: str
    model: str
    window: tuple[int, int, int, int]
    stages: list[dict[str, Any]]
    effective_field_95: int
    effective_field_99: int
    receptive_field: int
    field_window: tuple[int, int, int, int]
    recommended_overlap: int
    full_overlap: int
    overlap: int
    tile: int


def inspect(
    model: str | Path,
    input: str,
    output: str | Path,
    *,
    window: tuple[int, int, int, int] | None = None,
    maps: int = 8,
    bidx: Sequence[int] | None = None,
    device: str = "auto",
    threads: int | None = None,
    overwrite: bool = False,
) -> Summary:
    """Draw the maps of every stage of a net over a window, and how far the net looks.

    The effective receptive field is measured in a window of its own around the same middle, as
    large as the theoretical one, but no larger than 1024 px or some 4 GB of maps allow.

    Args:
        model: a model file, or the name of a bundled model.
        input: whatever rasterio opens: a file, `/vsi...`, a URL, a file in an archive.
        output: path of the picture: .png, .pdf or .svg.
        window: column, row, width and height in px, width and height multiples of the net's stride;
            by default one tile in the middle, completed by reflection if the raster is smaller.
        maps: how many to show of a stage.
        bidx: bands for the net's channels, from 1; by default every band but alpha.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        threads: CPUs to use, by default all that this process may use.
        overwrite: replace an existing picture.

    Raises:
        OptionError: if an option cannot be used with this raster, net or machine, or matplotlib is
            not installed.
        InputError: if the raster cannot be read, does not suit the model, or has no data there.
        ModelError: if the model cannot be used, or its logits do not depend on the image.
        OutOfMemoryError: if the window does not fit the device.
        OutputError: if the picture exists or cannot be written.
    """
    path, plan = Path(output), make_plan(device, "fp32", 1, threads)
    check_range("--maps", maps, 1)
    check_figure(path)
    check_output(path, overwrite=overwrite)
    check_apart(path, {"the model": [model]})
    loaded = load_model(model)
    net, card = loaded.net, loaded.card
    outline = build_on_meta(card.arch, len(card.bands), len(card.classes), card.arch_options)

    def passed(rows: int, columns: int) -> list[Layer]:
        return layers(outline, len(card.bands), rows, columns)

    with open_raster(input, threads=plan.threads) as raster:
        check_apart(path, {"the input, or a part of it": files_of(raster)})
        bands = choose_bands(raster, card, bidx)
        remark_on_resolution(raster, card)
        height, width = raster.shape
        shown = choose_window(window, height, width, card.tile, net)
        remark_on_tile(loaded, shown.width)
        around = field_window(
            shown,
            height,
            width,
            card.tile,
            net,
            lambda *size: sum(made.bytes for made in passed(*size)),
        )
        x, valid = _read(raster, bands, shown, card)
        ground, _ = _read(raster, bands, around, card)
    if plan.device.type == "cpu":
        torch.set_num_threads(plan.threads)
    exact_fp32(plan.device)
    advice = "use a smaller --window, or another --device"
    with out_of_memory(plan.device, f"a look into {card.name}", advice):
        found = passed(shown.height, shown.width)
        places = choose_stages(found, dict(net.named_modules()))
        stages, logits = record(net.to(plan.device), x.to(plan.device), found, places, maps)
        field = _measure(net, ground.to(plan.device))
    colours = shown_bands(card)
    classes = np.where(valid, logits.argmax(0).cpu().numpy(), len(card.classes))
    rows = [
        _image_row(x[0].numpy(), colours, maps),
        *(_stage_row(stage, is_last=stage is stages[-1]) for stage in stages),
        Row("mask", [draw_classes(classes, card)]),
    ]
    title = _title(card, input, shown, around, net.receptive_field)
    backdrop = draw_image(ground[0].numpy(), colours)
    draw_inspection(path, title, rows, card, field, backdrop, net.receptive_field)
    radius = field.radius(0.99)
    return Summary(
        output=str(output),
        model=card.name,
        window=_numbers(shown),
        stages=[_outline(stage) for stage in stages],
        effective_field_95=field.side(0.95),
        effective_field_99=field.side(0.99),
        receptive_field=net.receptive_field,
        field_window=_numbers(around),
        recommended_overlap=recommend_overlap(radius, net.stride, card.tile),
        full_overlap=recommend_overlap(radius, net.stride),
        overlap=card.overlap,
        tile=card.tile,
    )


def _read(
    raster: rasterio.DatasetReader, bands: Sequence[int], window: Window, card: Card
) -> tuple[Tensor, NDArray[np.bool_]]:
    """Return a window as the net wants it, (1, bands, H, W), and (H, W) which pixels are valid."""
    pixels, valid = read_completed(raster, bands, window)
    if not valid.any():
        raise InputError(
            f"{raster.name} has no data in the window {_text(window)}: choose another --window"
        )
    mean, std = np.array(card.means, np.float32), np.array(card.stds, np.float32)
    return normalise(pixels, valid, mean, std)[None], valid


def _measure(net: Net, x: Tensor) -> EffectiveField:
    """Return how far a net looks in a window."""
    places = spread_places(x.shape[2], x.shape[3], net.stride, net.receptive_field)
    # the same function in fewer and faster steps
    fast = fold_batch_norm(net).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return measure_field(fast, x.contiguous(memory_format=torch.channels_last), places)


def _image_row(x: NDArray[np.float32], colours: Sequence[int], maps: int) -> Row:
    """Return the window in colours, and as many of its bands as there is room for."""
    bands = [shade(band, "gray") for band in x[: maps - 1]]
    return Row(f"image\n{_shape(*x.shape)}", [draw_image(x, colours), *bands])


def _stage_row(stage: Stage, *, is_last: bool) -> Row:
    name = f"{stage.name} (logits)" if is_last else stage.name
    shape = _shape(stage.channels, stage.height, stage.width)
    return Row(f"{name}\n{shape}, stride {stage.stride}", [shade(m.numpy()) for m in stage.maps])


def _outline(stage: Stage) -> dict[str, Any]:
    """Return a stage without its maps."""
    names = ("name", "channels", "height", "width", "stride")
    return {name: getattr(stage, name) for name in names}


def _title(card: Card, input: str, shown: Window, around: Window, field: int) -> str:
    lines = [
        f"{card.name} ({card.arch}) on {Path(input).name}, window {_text(shown)}",
        "Every stage from the image to the mask. Where there are more maps than shown, these are "
        "those that vary most; each has the colours of its own range, 2 % to 98 %.",
    ]
    if field > min(around.height, around.width):
        lines.append(
            f"The theoretical field, {field} px, is larger than the {around.width} px x "
            f"{around.height} px in which gradients were measured."
        )
    return "\n".join(lines)


def _shape(channels: int, height: int, width: int) -> str:
    return f"{channels} x {height} x {width}"


def _numbers(window: Window) -> tuple[int, int, int, int]:
    return int(window.col_off), int(window.row_off), int(window.width), int(window.height)


def _text(window: Window) -> str:
    return ",".join(map(str, _numbers(window)))
