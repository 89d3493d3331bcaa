"""Exactly stitched tiles against one forward pass over the whole raster."""

import numpy as np
import pytest
import rasterio
import torch
from nets import NETWORKS, THIN, card
from rasterio.windows import Window
from torch import nn

from fcntile.errors import OptionError
from fcntile.inference.grid import plan_tiling
from fcntile.inference.memory import resident_bytes
from fcntile.models.model_file import load_model, save_model
from fcntile.models.registry import create_model
from fcntile.predict import predict

HEIGHT, WIDTH = 1090, 1323  # no multiples of any stride


@pytest.fixture
def ground(orthophoto, make_raster):
    """Return a real orthophoto, mirrored to be larger than tiles with halos."""
    with rasterio.open(orthophoto) as raster:
        pixels = raster.read()
    beyond = (0, 0), (0, HEIGHT - pixels.shape[1]), (0, WIDTH - pixels.shape[2])
    pixels = np.pad(pixels, beyond, mode="symmetric")
    return make_raster(pixels), pixels


def untiled(model, pixels):
    """Return the logits of a raster that is reflected to a multiple of the net's stride."""
    height, width = pixels.shape[1:]
    loaded = load_model(model)
    beyond = [(0, 0), *((0, -n % loaded.net.stride) for n in (height, width))]
    x = (np.pad(pixels, beyond, mode="reflect").astype(np.float32) - 128) / 64
    with torch.inference_mode():
        return loaded.net(torch.from_numpy(x)[None])[0, :, :height, :width].numpy()


def assert_exact(made, logits, expected):
    scale = max(1.0, float(np.abs(expected).max()))
    assert np.abs(logits - expected).max() < 1e-4 * scale
    best = np.sort(expected, axis=0)
    clear = best[-1] - best[-2] > 1e-4 * scale
    assert np.array_equal(made[clear], expected.argmax(0)[clear])
    assert (made != expected.argmax(0)).mean() < 1e-5


def stitched(image, model, folder, **options):
    predict(
        image,
        folder / "mask.tif",
        model=model,
        products={"logits": folder / "logits.tif"},
        overwrite=True,
        **options,
    )
    with rasterio.open(folder / "mask.tif") as mask, rasterio.open(folder / "logits.tif") as logits:
        return mask.read(1), logits.read()


CASES = [("fcn8s", 512), ("full-resolution", 256), ("probe", 128), ("fcn2s-small", 64)]


@pytest.mark.parametrize(("arch", "tile"), CASES)
def test_exact_stitching_is_the_untiled_forward_pass(ground, make_model, tmp_path, arch, tile):
    image, pixels = ground
    model = make_model(arch, classes=4, arch_options=THIN.get(arch, {}))
    made, logits = stitched(image, model, tmp_path, stitch="exact", tile=tile)
    assert_exact(made, logits, untiled(model, pixels))


@pytest.mark.parametrize(
    ("arch", "tile"),
    [("fcn8s", 512), ("full-resolution", 256), ("probe", 128), ("fcn2s-small", 128)],
)
def test_what_tiles_are_cut_off_does_not_reach_the_raster(
    ground, make_raster, make_model, tmp_path, arch, tile
):
    image = make_raster(ground[1][:, :642, :1000], "smaller.tif")
    model = make_model(arch, classes=4, arch_options=THIN.get(arch, {}))
    net = load_model(model).net
    grid = 642, 1000, tile, tile // 4, net.stride, net.halo
    whole, short = (plan_tiling(*grid, whole=is_whole) for is_whole in (True, False))
    assert (short.y.padded, short.x.padded) < (whole.y.padded, whole.x.padded)
    options = {"tile": tile, "overlap": tile // 4}
    _, logits = stitched(image, model, tmp_path, batch_size=1, **options)
    _, expected = stitched(image, model, tmp_path, batch_size=2, **options)
    assert np.abs(logits - expected).max() < 1e-5 * max(1.0, float(np.abs(expected).max()))


@pytest.mark.slow
@pytest.mark.parametrize("arch", [n for n in NETWORKS if n != "mirror-vgg-thread"])
def test_every_net_is_exact(ground, make_model, tmp_path, arch):
    image, pixels = ground
    model = make_model(arch, classes=4, arch_options=THIN[arch])
    net = load_model(model).net
    tile = min(2 * net.halo + 4 * max(net.stride, 16), 1024)
    if 2 * net.halo + net.stride > tile:  # fc-densenet103 sees more than the raster has
        tile = 2 * net.halo + net.stride
    made, logits = stitched(image, model, tmp_path, stitch="exact", tile=tile)
    assert_exact(made, logits, untiled(model, pixels))


# wide enough that random kernels tell pixels apart
BALANCED = {
    "fcn8s": {"width": 8, "head": 16, "batch_norm": True},
    "deconvnet": {"width": 4, "head": 8},
    "full-resolution": {"width": 4, "head": 8, "batch_norm": True},
    "fc-densenet56": {"growth": 4, "stem": 8},
}


def save_balanced_model(path, arch, pixels):
    """Write a model of random weights to which a raster has every class in many places."""
    torch.manual_seed(5)
    net = create_model(arch, 3, 4, **BALANCED[arch])
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the mean of all batches: of this one
        elif isinstance(layer, nn.Dropout):
            layer.p = 0
    side = 640 // net.stride * net.stride
    x = torch.from_numpy((pixels[None, :, :side, :side].astype(np.float32) - 128) / 64)
    with torch.no_grad():
        net.train()(x)
        means = net.eval()(x)[0].mean((1, 2))
        *_, last = (m for m in net.modules() if isinstance(m, nn.Conv2d) and m.out_channels == 4)
        last.bias -= means
    save_model(path, net, card(arch, classes=4, arch_options=BALANCED[arch]))


@pytest.mark.parametrize(
    ("arch", "tile"),
    [
        ("fcn8s", 512),
        ("deconvnet", 1024),
        ("full-resolution", 512),
        pytest.param("fcn8s", 1024, marks=pytest.mark.slow),
        pytest.param("fcn8s", 2048, marks=pytest.mark.slow),
        pytest.param("deconvnet", 1280, marks=pytest.mark.slow),
        pytest.param("full-resolution", 1024, marks=pytest.mark.slow),
        pytest.param("fc-densenet56", 1024, marks=pytest.mark.slow),
    ],
)
def test_classes_that_change_all_the_time_are_those_of_the_untiled_pass(
    ground, tmp_path, arch, tile
):
    image, pixels = ground
    save_balanced_model(tmp_path / "m.safetensors", arch, pixels)
    made, logits = stitched(image, tmp_path / "m.safetensors", tmp_path, stitch="exact", tile=tile)
    expected = untiled(tmp_path / "m.safetensors", pixels)
    labels, scale = expected.argmax(0), float(expected.std(axis=(1, 2)).mean())
    assert np.bincount(labels.ravel(), minlength=4).min() > labels.size / 50
    assert np.abs(logits - expected).max() < 1e-4 * scale
    second, best = np.sort(expected, axis=0)[-2:]
    other = made != labels
    assert other.sum() <= 5 and (best - second)[other].max(initial=0) < 1e-5 * scale  # ties


@pytest.mark.parametrize("shape", [(40, 700), (31, 33), (1, 1), (512, 513)])
def test_small_rasters_are_exact_too(ground, make_raster, make_model, tmp_path, shape):
    _, pixels = ground
    pixels = pixels[:, : shape[0], : shape[1]]
    model = make_model("fcn8s", classes=4, arch_options=THIN["fcn8s"])
    image = make_raster(pixels, "small.tif")
    made, logits = stitched(image, model, tmp_path, stitch="exact", tile=512)
    assert_exact(made, logits, untiled(model, pixels))


def test_a_guard_narrower_than_the_halo_is_not_exact(ground, make_model, tmp_path):
    """What the exact tests would say if the halo were too small."""
    image, pixels = ground
    model = make_model("fcn8s", classes=4, arch_options=THIN["fcn8s"])
    _, logits = stitched(image, model, tmp_path, stitch="crop", tile=512, overlap=128)
    expected = untiled(model, pixels)
    assert np.abs(logits - expected).max() > 1e-2 * np.abs(expected).max()


def test_a_net_without_a_halo_refuses_with_the_reason(orthophoto, make_model, tmp_path):
    model = make_model("mirror-vgg-thread", arch_options=THIN["mirror-vgg-thread"], tile=64)
    with pytest.raises(OptionError, match="takes tiles of one size only"):
        predict(orthophoto, tmp_path / "mask.tif", model=model, stitch="exact")


def test_an_exact_tile_must_be_larger_than_two_halos(orthophoto, tmp_path):
    with pytest.raises(OptionError, match="--tile 480 or more, or --tile auto"):
        predict(orthophoto, tmp_path / "mask.tif", stitch="exact", tile=448)
    with pytest.raises(OptionError, match="leave out --overlap"):
        predict(orthophoto, tmp_path / "mask.tif", stitch="exact", tile=512, overlap=64)


def test_a_raster_smaller_than_every_tile_is_one_tile(ground, make_raster, tmp_path):
    image = make_raster(ground[1][:, :40, :70], "small.tif")
    for stitch in ("exact", "cosine"):
        options = {"stitch": stitch, "tile": "auto", "overwrite": True}
        assert predict(image, tmp_path / "mask.tif", **options).tiles == 1


def test_the_largest_tile_that_fits_is_chosen(ground, make_model, tmp_path):
    image, _ = ground
    model = make_model("fcn8s", classes=4, arch_options=THIN["fcn8s"])
    whole = predict(image, tmp_path / "a.tif", model=model, tile="auto", stitch="exact")
    assert (whole.tiles, whole.compute_factor) == (1, 1)
    bound = resident_bytes() + 330e6
    some = predict(
        image, tmp_path / "b.tif", model=model, tile="auto", stitch="exact", max_memory=bound
    )
    assert 480 <= some.tile < whole.tile
    assert some.compute_factor == pytest.approx((some.tile / (some.tile - 448)) ** 2, abs=1e-3)


@pytest.mark.parametrize(
    ("stitch", "precision"),
    [("cosine", "fp32"), ("exact", "fp32"), ("crop", "fp32"), ("cosine", "bf16")],
)
def test_bounds_clip_the_very_mask_of_the_whole(ground, make_model, tmp_path, stitch, precision):
    image, _ = ground
    model = make_model("fcn8s", classes=4, arch_options=THIN["fcn8s"])
    options = {"stitch": stitch, "tile": 512, "model": model, "precision": precision}
    predict(image, tmp_path / "whole.tif", **options)
    with rasterio.open(tmp_path / "whole.tif") as raster:
        window = Window(411, 302, 640, 555)
        expected, transform = raster.read(1, window=window), raster.window_transform(window)
        bounds = raster.window_bounds(window)
    predict(image, tmp_path / "part.tif", bounds=bounds, **options)
    with rasterio.open(tmp_path / "part.tif") as part:
        assert np.array_equal(part.read(1), expected)
        assert part.transform.almost_equals(transform)


def test_the_compute_factor_of_a_crop(orthophoto, tmp_path):
    tiling = plan_tiling(4096, 4096, 512, 128, 32, 224, stitch="crop")
    assert (tiling.x.guard, tiling.x.ramp) == (64, 0)
    assert tiling.compute_factor == pytest.approx(1.78, abs=0.01)
