"""How frameworks lay out a kernel, and how to lay it out as torch does."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """The order of axes in a framework's weights.

    Args:
        kernel: of a convolution's axes: outputs, inputs, height (rows) and width (columns).
        is_flipped: it computes a convolution in the strict sense, as Theano does, which turns the
            kernel by half; Caffe, TensorFlow and torch correlate (keras issues 3015 and 5374).
        dense: of a dense layer's axes: outputs and inputs.
        flat: how the maps before the first dense layer were flattened: channels, height, width.
    """

    kernel: str = "OIHW"
    is_flipped: bool = False
    dense: str = "OI"
    flat: str = "CHW"


THEANO = Layout(is_flipped=True, dense="IO")
TENSORFLOW = Layout("HWIO", dense="IO", flat="HWC")
LAYOUTS = {
    "classic": THEANO,
    "numpy": TENSORFLOW,
    "matconvnet": Layout("HWIO"),  # which has no dense layers
    "caffe": Layout(),
    "torch": Layout(),
}


def keras_layout(first: Tensor) -> Layout:
    """Return the layout of a Keras file, which only the first kernel's shape tells.

    Args:
        first: the kernel of conv1_1: (64, 3, 3, 3) in Theano's files, (3, 3, 3, 64) in
            TensorFlow's.
    """
    return THEANO if first.ndim and first.shape[0] > first.shape[-1] else TENSORFLOW


def to_kernel(weight: Tensor, layout: Layout, side: int = 1) -> Tensor:
    """Return a layer's weight as torch's kernel of a correlation.

    Args:
        weight: of a convolution (4 axes), or of a dense layer (2 axes).
        layout: of the framework.
        side: height and width of the maps that a dense layer saw.

    Returns:
        (outputs, inputs, rows, columns)

    Raises:
        ValueError: if the shape is neither.
    """
    if weight.ndim == 4:
        kernel = weight.permute(*(layout.kernel.index(axis) for axis in "OIHW"))
        return kernel.flip(2, 3) if layout.is_flipped else kernel
    if weight.ndim != 2:
        raise ValueError(f"a kernel has 4 axes or 2, not the shape {tuple(weight.shape)}")
    rows = weight.T if layout.dense == "IO" else weight  # (outputs, inputs)
    channels, left = divmod(rows.shape[1], side**2)
    if left:
        raise ValueError(f"{rows.shape[1]} inputs are no maps of {side} x {side}")
    if layout.flat == "HWC":
        return rows.reshape(len(rows), side, side, channels).permute(0, 3, 1, 2)
    return rows.reshape(len(rows), channels, side, side)
