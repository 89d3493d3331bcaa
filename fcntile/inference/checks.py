"""Does a raster suit a model, and can outputs be? Said before any work, never guessed."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import rasterio
from rasterio.enums import ColorInterp

from fcntile.errors import InputError, OptionError, check_choice
from fcntile.files import check_output, same_file
from fcntile.inference.choices import DTYPES, PRODUCTS
from fcntile.models.card import Card
from fcntile.models.model_file import Model
from fcntile.raster.reader import COLOURS, band_names, choose_numbers, plain, resolution

log = logging.getLogger(__name__)

OTHER_FORMATS = (".gpkg", ".img", ".jp2", ".jpg", ".jpeg", ".nc", ".png", ".shp", ".vrt", ".webp")
RESOLUTION_FACTOR = 1.5  # pixels so much larger or smaller than in training are remarked on


def output_paths(
    output: str | Path, products: Mapping[str, str | Path], dtype: str
) -> dict[str, Path]:
    """Return where the mask and the other products go, by their names.

    Args:
        output: path of the mask.
        products: paths of the others by name.
        dtype: of the others.

    Raises:
        OptionError: if there is no such product or dtype, or no product that it is for, or two are
            to be one file.
        OutputError: if a file cannot have one of these names.
    """
    check_choice("--dtype", dtype, DTYPES)
    for name in products:
        check_choice("product", name, PRODUCTS)
    if dtype != DTYPES[0] and not products:
        raise OptionError(
            f"--dtype {dtype} is for probabilities and the like, and none are asked for: leave it "
            "out; the mask's is that of the class values"
        )
    paths = {"mask": Path(output)} | {name: Path(path) for name, path in products.items()}
    for path in paths.values():
        check_output(path, overwrite=True)
        if path.suffix.lower() in OTHER_FORMATS:
            log.warning("%s will be a GeoTIFF, whatever its name says", path)
    if len(set(map(same_file, paths.values()))) < len(paths):
        raise OptionError(f"two outputs in one file: {', '.join(map(str, paths.values()))}")
    return paths


def choose_bands(
    raster: rasterio.DatasetReader, card: Card, bidx: Sequence[int] | None = None
) -> list[int]:
    """Return the raster's bands that feed the model's channels, in their order.

    Args:
        raster: open dataset.
        card: what the model expects.
        bidx: band numbers from 1, if the user names them; otherwise every band but alpha.

    Raises:
        InputError: if their number, colours, dtype, scale or offset are not the model's.
    """
    wanted = [plain(band.name) for band in card.bands]
    model = f"model {card.name} wants {len(wanted)} ({', '.join(wanted)})"
    bands = choose_numbers(raster, bidx)
    if len(bands) != len(wanted):
        given = f"{raster.name} has {len(bands)}"
        if bidx:
            given = f"--bidx chooses {len(bands)}"
        if [raster.colorinterp[i - 1] for i in bands] == [ColorInterp.palette]:
            given += " palette band"
            advice = "gdal_translate -expand rgb turns it into colours"
        else:
            given += " band(s)"
            advice = "choose them with -b, in that order"
            if raster.count < len(wanted):
                advice = "use another raster or model"
        raise InputError(f"{given}, {model}: {advice}")
    _check_values(raster, bands, card)
    names = band_names(raster, bands)
    for i, name in zip(bands, names, strict=True):
        said = plain(raster.descriptions[i - 1] or "")
        if not bidx and name in COLOURS and said in COLOURS - {name}:
            raise InputError(
                f"band {i} of {raster.name} means {name} and is described as {said}: choose with "
                f"-b, as model {card.name} wants {', '.join(wanted)}"
            )
    is_same_set = sorted(names) == sorted(wanted)
    if not bidx and any(
        given != name and (is_same_set or {given, name} <= COLOURS)
        for given, name in zip(names, wanted, strict=True)
    ):
        order = "choose them with -b"
        if is_same_set:
            order = "use " + " ".join(f"-b {bands[names.index(name)]}" for name in wanted)
        raise InputError(f"the bands of {raster.name} are {', '.join(names)}, {model}: {order}")
    if bidx and any(a != b and {a, b} <= COLOURS for a, b in zip(names, wanted, strict=True)):
        log.warning(
            "-b chooses %s, model %s wants %s: is that what you mean?",
            ", ".join(names),
            card.name,
            ", ".join(wanted),
        )
    return bands


def _check_values(raster: rasterio.DatasetReader, bands: list[int], card: Card) -> None:
    """Raise InputError unless the bands' numbers mean what they meant in training."""
    for i in bands:
        dtype, scale, offset = raster.dtypes[i - 1], raster.scales[i - 1], raster.offsets[i - 1]
        if dtype != card.dtype:
            raise InputError(
                f"band {i} of {raster.name} is {dtype}, model {card.name} wants {card.dtype}: "
                "bring the values to the model's range first (gdal_translate -ot ... -scale ...)"
            )
        if (scale, offset) != (card.scale, card.offset):
            raise InputError(
                f"band {i} of {raster.name} has scale {scale:g} and offset {offset:g}, model "
                f"{card.name} wants {card.scale:g} and {card.offset:g}: rescale the values first"
            )


def remark_on_tile(model: Model, tile: int) -> None:
    """Warn if a net that was trained on windows of one size is to predict in others."""
    if model.net.is_tile_bound and tile != model.card.tile:
        log.warning(
            "%s gives other values in tiles of %d px than in the %d px of its training: expect a "
            "worse mask",
            model.card.name,
            tile,
            model.card.tile,
        )


def remark_on_resolution(raster: rasterio.DatasetReader, card: Card) -> None:
    """Warn if the raster's pixels are much larger or smaller on the ground than in training."""
    given = resolution(raster)
    if given is None or card.resolution is None:
        return
    if not 1 / RESOLUTION_FACTOR <= given / card.resolution <= RESOLUTION_FACTOR:
        log.warning(
            "pixels of %s are %.3g m, model %s was trained at %.3g m: expect a worse mask, "
            "or resample first (gdalwarp -tr)",
            raster.name,
            given,
            card.name,
            card.resolution,
        )
