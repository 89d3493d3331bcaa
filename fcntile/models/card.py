"""The card of a model: what it was trained on and what it gives, as JSON.

`predict` reads from it what other tools ask for or guess: which bands in which order, their dtype
and scale, the mean and deviation to normalise with, and what the classes are called.
"""

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from fcntile.errors import ModelError
from fcntile.models.options import LARGEST, is_number, is_whole

FORMAT = 1  # of the card; raised when an old fcntile could misread a new card
MAX_CLASSES = 32768  # positions are int16 where torch computes with them
MAX_VALUE = 65533  # masks are uint16 at most, where 65534 and 65535 mean no class
_UNWRITABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # what XML and UTF-8 do not have
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


@dataclass(frozen=True)
class Band:
    """One input channel: its name, and mean and deviation in the raster's own units."""

    name: str
    mean: float
    std: float


@dataclass(frozen=True)
class ModelClass:
    """One output channel: what it is called, and how it shows in the mask.

    Args:
        name: for people.
        color: `#rrggbb`.
        value: of its pixels in masks; None for its position (`Card.values` has either).
    """

    name: str
    color: str
    value: int | None = None

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green and blue, 0-255.

        >>> ModelClass("building", "#ff8000").rgb
        (255, 128, 0)
        """
        red, green, blue = bytes.fromhex(self.color[1:])
        return red, green, blue


@dataclass(frozen=True)
class Card:
    """Everything about a model that is not a weight.

    Args:
        name: what people call the model.
        arch: name of the network in the registry.
        bands: input channels, in order.
        dtype: of the rasters, one of `DTYPES`.
        classes: output channels, in order.
        arch_options: options of the network.
        scale: scale that the training rasters declared for their values (GDAL's band scale).
        offset: likewise their offset.
        tile: side of a tile in px that suits the model.
        overlap: overlap in px that suits the model.
        resolution: ground size of a training pixel in metres; None if unknown.
        training: what it was trained on and how, and its scores; for people.
        licence: SPDX expression or a sentence.
        attribution: whom to name when using the model.
    """

    name: str
    arch: str
    bands: tuple[Band, ...]
    dtype: str
    classes: tuple[ModelClass, ...]
    arch_options: dict[str, Any] = field(default_factory=dict)
    scale: float = 1.0
    offset: float = 0.0
    tile: int = 512
    overlap: int = 128
    resolution: float | None = None
    training: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    attribution: str = ""

    def __post_init__(self) -> None:
        if not self.bands or not 1 <= len(self.classes) <= MAX_CLASSES:
            raise ModelError(f"a model has at least one band and 1 to {MAX_CLASSES} classes")
        for name in ("name", "arch", "licence", "attribution"):
            self._require(name, isinstance(getattr(self, name), str), "a text")
        for name in ("arch_options", "training"):
            self._require(name, isinstance(getattr(self, name), dict), "an object")
        self._require("scale", is_number(self.scale) and self.scale != 0, "a number, not 0")
        self._require("offset", is_number(self.offset), "a number")
        self._require("tile", is_whole(self.tile, 1), f"a whole number from 1 to {LARGEST}")
        self._require("overlap", is_whole(self.overlap, 0), f"a whole number from 0 to {LARGEST}")
        known = self.resolution is None or (is_number(self.resolution) and self.resolution > 0)
        self._require("resolution", known, "a number above 0, or null")
        if self.dtype not in DTYPES:
            raise ModelError(f"dtype {self.dtype!r} is none of {', '.join(DTYPES)}")
        for name in (*(b.name for b in self.bands), *(c.name for c in self.classes)):
            if not (isinstance(name, str) and not _UNWRITABLE.search(name)):
                raise ModelError(f"the name of a band or class is {name!r}, and not a plain text")
        for band in self.bands:
            if not (is_number(band.mean) and is_number(band.std) and band.std > 0):
                raise ModelError(
                    f"band {band.name!r} has mean {band.mean!r} and standard deviation "
                    f"{band.std!r}: they must be numbers, and the deviation above 0"
                )
        for c in self.classes:
            if not (isinstance(c.color, str) and re.fullmatch("#[0-9a-f]{6}", c.color)):
                raise ModelError(f"colour {c.color!r} of class {c.name!r} is not #rrggbb")
        for value, count in Counter(self.values).items():
            if type(value) is not int or not 0 <= value <= MAX_VALUE:
                raise ModelError(f"class value {value!r} is no integer from 0 to {MAX_VALUE}")
            if count > 1:
                raise ModelError(f"{count} classes have the value {value}: give each its own")

    def _require(self, name: str, fits: bool, wanted: str) -> None:
        if not fits:
            raise ModelError(f"{name} of the model is {getattr(self, name)!r}, wanted is {wanted}")

    @property
    def values(self) -> tuple[int, ...]:
        """The value of each class in masks: the label value that it was trained on."""
        return tuple(i if c.value is None else c.value for i, c in enumerate(self.classes))

    @property
    def means(self) -> tuple[float, ...]:
        """The mean of each band."""
        return tuple(band.mean for band in self.bands)

    @property
    def stds(self) -> tuple[float, ...]:
        """The standard deviation of each band."""
        return tuple(band.std for band in self.bands)

    def to_json(self) -> str:
        """Return the card as JSON, with the number of its format."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Card":
        """Return the card in a JSON text.

        Raises:
            ModelError: if the text is no card, or one of a newer fcntile.
        """
        try:
            values = json.loads(text)
            version = values.pop("format")
            if not is_number(version):
                raise ModelError(f"the model's card has format {version!r}, which is no number")
            if version > FORMAT:
                raise ModelError(
                    f"the model's card has format {version}, this fcntile reads up to {FORMAT}: "
                    "upgrade fcntile"
                )
            values["bands"] = tuple(Band(**band) for band in values["bands"])
            values["classes"] = tuple(ModelClass(**c) for c in values["classes"])
            return cls(**values)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(f"the model's card cannot be read: {error!r}") from error
