"""The thread's net: what was wrong with it, and that it is mended."""

import pytest
import torch

from fcntile.errors import ModelError
from fcntile.models import create_model

THIN = {"width": 4, "head": 8}


def is_affine(function, x, y):
    """Return whether f(x) + f(y) = f(x + y) + f(0)."""
    return torch.allclose(function(x) + function(y), function(x + y) + function(0 * x), atol=1e-9)


def test_the_decoder_of_the_thread_is_one_affine_map_and_the_mended_one_is_not():
    torch.manual_seed(0)
    x, y = torch.randn(2, 1, 8, 1, 1).double()
    thread = create_model("mirror-vgg-thread", 3, 2, **THIN).double().eval()
    assert is_affine(lambda z: thread.score(thread.decoder(z)), x, y)

    mended = create_model("mirror-vgg", 3, 2, **THIN).double().eval()
    with torch.no_grad():
        for p in mended.parameters():  # N(0, 0.01) lets 14 thin layers vanish
            p.mul_(30 if p.ndim > 1 else 1)
    x, y = torch.randn(2, 1, 8, 7, 7).double()

    def decode(z):
        z = mended.fc6_deconv(z)
        for n in range(5, 0, -1):
            z = mended.get_submodule(f"deblock{n}")(mended.get_submodule(f"unpool{n}")(z))
        return mended.score(z)

    assert not is_affine(decode, x, y)


def test_scores_of_the_thread_are_never_negative():
    torch.manual_seed(0)
    thread = create_model("mirror-vgg-thread", 3, 2, **THIN).eval()
    mended = create_model("mirror-vgg", 3, 2, **THIN).eval()
    x = torch.randn(1, 3, 224, 224)
    assert thread(x).min() == 0
    assert mended(x).min() < 0


@pytest.mark.parametrize(
    ("size", "side", "blocks"), [(32, 1, 5), (224, 7, 5), (256, 8, 5), (320, 5, 6), (1024, 8, 7)]
)
def test_blocks_are_added_until_the_map_is_8_px_wide(size, side, blocks):
    net = create_model("mirror-vgg-thread", 3, 2, **THIN, size=size)
    assert net.fc6.conv6.kernel_size == (side, side)
    assert len(net.encoder) == blocks


@pytest.mark.parametrize("size", [500, 16, 352])
def test_other_sizes_are_refused(size):
    with pytest.raises(ModelError, match=f"size {size} is not 32 times 1 to 8, or twice"):
        create_model("mirror-vgg-thread", 3, 2, **THIN, size=size)
