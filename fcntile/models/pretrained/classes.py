"""What the classes of published scores are called, and how they show."""

from fcntile.errors import ModelError
from fcntile.models.card import ModelClass

VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
IMAGENET = 1000


def voc_color(index: int) -> str:
    """Return the colour of a class by the rule of PASCAL VOC's development kit.

    Of every three bits of the index, the lowest first, one goes to red, one to green, one to blue,
    into the highest bit that is still free.

    >>> voc_color(0), voc_color(1), voc_color(15)
    ('#000000', '#800000', '#c08080')
    """
    rgb = [0, 0, 0]
    for bit in range(24):
        rgb[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    return "#" + bytes(rgb).hex()


def name_classes(count: int, given: tuple[str, ...]) -> tuple[ModelClass, ...]:
    """Return classes for scores: as the file names them, else those of PASCAL VOC or ImageNet.

    Raises:
        ModelError: if there are neither names nor as many scores as these have.
    """
    names: tuple[str, ...] = ()
    if len(given) == count:
        names = given
    elif count == len(VOC):
        names = VOC
    elif count == IMAGENET:
        names = tuple(f"ImageNet {i}" for i in range(IMAGENET))
    if not names:
        raise ModelError(
            f"the file scores {count} classes without naming them: give a table with --classes"
        )
    return tuple(ModelClass(name, voc_color(i)) for i, name in enumerate(names))
