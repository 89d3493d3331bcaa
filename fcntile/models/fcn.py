"""FCN-32s, FCN-16s and FCN-8s: fully convolutional networks on VGG16.

Long, Shelhamer and Darrell, *Fully Convolutional Networks for Semantic Segmentation* (CVPR 2015,
arXiv 1411.4038; PAMI 2016, arXiv 1605.06211); layers are called as in the authors' Caffe nets.

Those nets pad the image by 100 px and crop afterwards (`padding=100`). By default convolutions keep
the size of their input instead: same weights, 42 % fewer operations at 512 px.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from fcntile.models.registry import Net, register_model
from fcntile.models.upsampling import BilinearDeconvolution, Crop, make_upsampling
from fcntile.models.vgg import CONVOLUTIONS, WIDTHS, conv_relu, vgg_block

PAPER = "arXiv 1411.4038"
Padding = Literal["same", 100]
# Where the Caffe nets crop, coarse to fine, by the number of skips: what padding 100 moves, and
# what convolutions and transposed convolutions without padding move back.
CROPS = ((19,), (5, 27), (5, 9, 31))


class FCN(Net):
    """VGG16 encoder, two wide convolutions, and class scores fused from coarse to fine.

    Args:
        bands: channels of the input.
        classes: channels of the output.
        skips: how many finer layers join the scores of the last block: 0 is FCN-32s, 1 adds pool4
            (FCN-16s), 2 pool3 (FCN-8s).
        blocks: of VGG16 before fc6; fewer than all five see less ground around.
        width: channels of the first block; the paper's nets have 64. Every other block scales.
        head: channels of fc6 and fc7; 4096 in the paper.
        batch_norm: normalise after every convolution but the scores; not in the paper, needed to
            train from scratch.
        dropout: share of fc6 and fc7 activations dropped in training.
        padding: "same", or 100 for the Caffe nets: these take any height and width.
        upsampling: of the scores, one of `UPSAMPLINGS` but zero-fill, whose holes nothing would
            fill; "frozen" bilinear kernels in the paper.
        skip_scales: factors on the finer layers before their scores, coarse to fine.
        dilation: of the convolutions of VGG16.

    Attributes:
        score_scales: factor on what the scores of a skip see, by their name.

    Shape:
        (N, bands, H, W) float32, normalised -> (N, classes, H, W) logits
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        skips: int,
        *,
        blocks: int = 5,
        width: int = 64,
        head: int = 4096,
        batch_norm: bool = False,
        dropout: float = 0.5,
        padding: Padding = "same",
        upsampling: str = "frozen",
        skip_scales: Sequence[float] | None = None,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        scales = (1.0,) * skips if skip_scales is None else tuple(skip_scales)
        _check(skips, blocks, padding, upsampling, scales, dilation)
        as_caffe = padding == 100
        channels = [bands, *(width * factor for factor in WIDTHS)]
        self._blocks = []
        for n in range(1, blocks + 1):
            block = vgg_block(
                n,
                channels[n - 1],
                channels[n],
                batch_norm=batch_norm,
                first_padding=100 if as_caffe and n == 1 else None,
                dilation=dilation,
                pool=nn.MaxPool2d(2, ceil_mode=as_caffe),
            )
            self.add_module(f"block{n}", block)
            self._blocks.append(f"block{n}")
        fc6_padding = 0 if as_caffe else None
        self.fc6 = conv_relu(
            "6", 7, channels[blocks], head, batch_norm=batch_norm, padding=fc6_padding
        )
        self.fc7 = conv_relu("7", 1, head, head, batch_norm=batch_norm)
        self.dropout = nn.Dropout(dropout)
        self.score_fr = nn.Conv2d(head, classes, 1)

        def enlarge(factor: int) -> nn.Module:
            if as_caffe:
                learned = upsampling == "learned"
                return BilinearDeconvolution(classes, factor, learned=learned, padding=0)
            return make_upsampling(upsampling, classes, factor)

        self._skips: list[tuple[str, str]] = []  # names of upsampling and scores, coarse to fine
        self.score_scales: dict[str, float] = {}
        upscore = "upscore2"
        for pool, scale in zip(range(blocks - 1, 0, -1), scales, strict=False):
            self.score_scales[f"score_pool{pool}"] = scale
            self._skips.append((upscore, f"score_pool{pool}"))
            self.add_module(upscore, enlarge(2))
            self.add_module(f"score_pool{pool}", nn.Conv2d(channels[pool], classes, 1))
            upscore = f"upscore_pool{pool}"
        self.upscore = enlarge((1 << blocks) >> skips)
        self.crops = nn.ModuleList(Crop(offset) for offset in CROPS[skips]) if as_caffe else None

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the size of `x`."""
        image, pools = x, []  # (N, width, H / 2, W / 2) to (N, 8 width, H / 32, W / 32)
        for block in self._blocks:
            x = self.get_submodule(block)(x)
            pools.append(x)
        score: Tensor = self.score_fr(self.dropout(self.fc7(self.dropout(self.fc6(pools.pop())))))
        for i, (upscore, score_pool) in enumerate(self._skips):
            pool, scale = pools.pop(), self.score_scales[score_pool]
            finer = self.get_submodule(score_pool)(pool if scale == 1 else pool * scale)
            score = self.get_submodule(upscore)(score)
            score = score + (self.crops[i](finer, score) if self.crops else finer)
        score = self.upscore(score)
        return self.crops[-1](score, image) if self.crops else score


def _check(
    skips: int,
    blocks: int,
    padding: Padding,
    upsampling: str,
    scales: Sequence[float],
    dilation: int,
) -> None:
    """Raise ValueError for options that do not go together."""
    if not skips < blocks <= len(CONVOLUTIONS):
        raise ValueError(f"{blocks} blocks, wanted is {skips + 1} to {len(CONVOLUTIONS)}")
    if len(scales) != skips or not all(scales):
        raise ValueError(f"the {skips} skips have the scales {scales}: wanted is one each, not 0")
    if padding not in ("same", 100):
        raise ValueError(f"padding {padding!r} is neither same nor 100")
    if upsampling == "zero-fill":
        raise ValueError("zero-fill leaves holes in the scores that no convolution fills")
    if padding == 100 and (blocks < 5 or dilation > 1 or upsampling not in ("frozen", "learned")):
        raise ValueError("padding 100 goes with five blocks and frozen or learned upsampling")


@register_model("fcn32s", FCN, PAPER)
def fcn32s(bands: int, classes: int, **options: Any) -> FCN:
    """Return FCN-32s: scores at stride 32 only."""
    return FCN(bands, classes, 0, **options)


@register_model("fcn16s", FCN, PAPER)
def fcn16s(bands: int, classes: int, **options: Any) -> FCN:
    """Return FCN-16s: scores at strides 32 and 16 (pool4)."""
    return FCN(bands, classes, 1, **options)


@register_model("fcn8s", FCN, PAPER)
def fcn8s(bands: int, classes: int, **options: Any) -> FCN:
    """Return FCN-8s: scores at strides 32, 16 (pool4) and 8 (pool3)."""
    return FCN(bands, classes, 2, **options)


@register_model("fcn8s-atonce", FCN, PAPER)
def fcn8s_atonce(bands: int, classes: int, **options: Any) -> FCN:
    """Return FCN-8s for training in one stage: its finer layers are scaled down.

    The authors train FCN-32s, FCN-16s and FCN-8s one after the other; scaled so that no layer
    dominates, all skips learn together (`voc-fcn8s-atonce`).
    """
    return FCN(bands, classes, 2, **{"skip_scales": (0.01, 0.0001), **options})


@register_model("fcn8s-small", FCN, PAPER)
def fcn8s_small(bands: int, classes: int, **options: Any) -> FCN:
    """Return an FCN-8s of a hundredth of the operations, with batch norm: trains from scratch."""
    small = {"width": 12, "head": 32, "batch_norm": True, "dropout": 0.1}
    return FCN(bands, classes, 2, **{**small, **options})


@register_model("fcn2s-small", FCN)
def fcn2s_small(bands: int, classes: int, **options: Any) -> FCN:
    """Return an FCN of two blocks, with scores at strides 4 and 2 (pool1).

    It sees 22 px around, where FCN-8s sees 218: for classes that are a few pixels across.
    """
    small = {"blocks": 2, "width": 32, "head": 128, "batch_norm": True, "dropout": 0.1}
    return FCN(bands, classes, 1, **{**small, **options})
