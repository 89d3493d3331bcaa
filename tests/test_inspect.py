"""Pictures read back, and numbers against what the layers say."""

import numpy as np
import pytest
import rasterio
import torch
from skimage.io import imread, imsave

from fcntile.errors import InputError, ModelError, OptionError, OutputError
from fcntile.inspect import inspect
from fcntile.models.model_file import load_model
from fcntile.training.inspection_figure import PANEL, shade

SMALL = {"width": 2, "head": 4, "batch_norm": True}


@pytest.fixture
def fcn(make_model):
    """Return a model of 13 stages."""
    return make_model("fcn8s", arch_options=SMALL, tile=64, overlap=32)


def panels(path):
    """Return where panels are: (first, stop) of rows, and of columns in the third row.

    Panels have no white pixels to speak of, and what is between them is white.
    """
    inked = (imread(path)[..., :3] < 250).any(2)
    left = inked[:, : inked.shape[1] * 3 // 5]
    column = np.convolve(left.sum(0), np.ones(41), "same").argmax()
    rows = runs(left[:, column - 20 : column + 20].mean(1) > 0.5)
    middle = sum(rows[2]) // 2
    return rows, runs(left[middle - 20 : middle + 20].mean(0) > 0.8)


def runs(is_on):
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_on.astype(int), [0]])))
    return [(a, b) for a, b in edges.reshape(-1, 2) if b - a > PANEL // 2]


def test_the_picture_has_a_row_for_every_stage(fcn, make_raster, noise, tmp_path):
    image = make_raster(noise(3, 96, 160))
    summary = inspect(fcn, image, tmp_path / "maps.png", maps=3, threads=1)
    names = [stage["name"] for stage in summary.stages]
    assert names[0] == "block1.1_2.relu1_2"
    assert names[-1] == "upscore"
    assert len(names) == 13
    assert summary.stages[2] == {
        "name": "block3.3_3.relu3_3",
        "channels": 8,
        "height": 16,
        "width": 16,
        "stride": 4,
    }
    assert summary.window == (48, 16, 64, 64)
    assert summary.output == str(tmp_path / "maps.png")
    rows, columns = panels(tmp_path / "maps.png")
    assert len(rows) == 13 + 2  # the image and the mask, too
    assert len(columns) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "fcn8s.safetensors",
        "image.tif",
        "maps.png",
    ]


def test_the_window_and_the_number_of_maps_are_as_asked(fcn, make_raster, noise, tmp_path):
    image = make_raster(noise(3, 96, 160))
    summary = inspect(fcn, image, tmp_path / "m.png", window=(5, 7, 64, 32), maps=2, threads=1)
    assert summary.window == (5, 7, 64, 32)
    assert (summary.stages[-1]["height"], summary.stages[-1]["width"]) == (32, 64)


def test_a_pixelwise_net_looks_at_one_pixel(make_model, make_raster, noise, tmp_path):
    model, image = make_model("pixel", tile=32), make_raster(noise(3, 50, 50))
    summary = inspect(model, image, tmp_path / "maps.png", threads=1)
    assert summary.effective_field_95 == summary.effective_field_99 == 1
    assert (summary.receptive_field, summary.recommended_overlap) == (1, 0)


def test_the_field_is_that_of_the_gradient(make_model, make_raster, noise, tmp_path):
    """The probe net's field against gradients taken one by one, on the mirrored raster."""
    path, pixels = make_model("probe", classes=2, tile=64), noise(3, 64, 64)
    summary = inspect(path, make_raster(pixels), tmp_path / "maps.png", threads=1)
    beyond, side = 110, 284  # 27 px of field and 256 px to spread, up to the stride of 4
    assert summary.field_window == (-beyond, -beyond, side, side)
    net = load_model(path).net
    padded = np.pad(pixels, ((0, 0), (beyond, beyond), (beyond, beyond)), mode="reflect")
    x = ((torch.from_numpy(padded).float() - 128) / 64)[None].requires_grad_()
    best, rings = net(x)[0].amax(0), torch.zeros(side)
    places = [12 + i * 64 + i for i in range(4)]  # as far apart as there is room, in all phases
    for row in places:
        for column in places:
            (slope,) = torch.autograd.grad(best[row, column], x, retain_graph=True)
            down, right = torch.arange(side) - row, torch.arange(side) - column
            radius = torch.maximum(down.abs()[:, None], right.abs())
            rings.index_add_(0, radius.flatten(), slope[0].abs().sum(0).flatten())
    shares = rings.cumsum(0) / rings.sum()
    for share, found in ((0.95, summary.effective_field_95), (0.99, summary.effective_field_99)):
        assert found == 2 * int((shares < share).sum()) + 1
    assert summary.recommended_overlap == min(-(-(summary.effective_field_99 - 1) // 4) * 4, 32)
    assert summary.effective_field_95 <= summary.effective_field_99 <= net.receptive_field + 4


def test_a_net_of_one_size_is_shown_at_that_size(make_model, make_raster, noise, tmp_path):
    options = {"size": 32, "width": 2, "head": 4}
    model = make_model("mirror-vgg-thread", arch_options=options, tile=32, overlap=0)
    image = make_raster(noise(3, 40, 40))
    try:
        summary = inspect(model, image, tmp_path / "maps.png", threads=1)
    except ModelError as error:  # its scores have a ReLU, which may be dead
        pytest.skip(str(error))
    assert summary.window[2:] == summary.field_window[2:] == (32, 32)
    assert summary.receptive_field == 32


def test_what_has_no_data_is_grey_in_the_mask_or_refused(fcn, make_raster, noise, tmp_path):
    pixels = np.maximum(noise(3, 64, 128), 1)
    pixels[:, :, 64:] = 0
    image = make_raster(pixels, nodata=0)
    with pytest.raises(InputError, match=r"no data in the window 64,0,64,64"):
        inspect(fcn, image, tmp_path / "maps.png", window=(64, 0, 64, 64))
    inspect(fcn, image, tmp_path / "maps.png", window=(32, 0, 64, 64), maps=1, threads=1)
    rows, columns = panels(tmp_path / "maps.png")
    mask = imread(tmp_path / "maps.png")[slice(*rows[-1]), slice(*columns[0]), :3]
    is_gray = (mask == 128).all(2)
    half = is_gray.shape[1] // 2
    assert is_gray[:, : half - 3].mean() < 0.01
    assert is_gray[2:-2, half + 3 : -2].all()


def test_the_output_may_not_be_the_input(fcn, noise, tmp_path):
    image = tmp_path / "image.png"
    imsave(image, noise(64, 64, 3))
    before = image.read_bytes()
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        pytest.raises(OutputError, match="is the input"),
    ):
        inspect(fcn, str(image), image, overwrite=True)
    assert image.read_bytes() == before


def test_the_output_may_not_be_the_model(fcn, make_raster, noise, tmp_path):
    model = (tmp_path / "fcn8s.safetensors").rename(tmp_path / "model.png")
    before = model.read_bytes()
    with pytest.raises(OutputError, match=r"model\.png is the model"):
        inspect(model, make_raster(noise(3, 64, 64)), tmp_path / "." / "model.png", overwrite=True)
    assert model.read_bytes() == before


def test_bands_and_maps_must_suit_the_model(fcn, make_raster, noise, tmp_path):
    with pytest.raises(InputError, match=r"2 band\(s\), model test-fcn8s wants 3"):
        inspect(fcn, make_raster(noise(2, 64, 64)), tmp_path / "maps.png")
    with pytest.raises(OptionError, match="--maps 0 is not 1 or more"):
        inspect(fcn, make_raster(noise(3, 64, 64)), tmp_path / "maps.png", maps=0)


def test_a_map_has_the_colours_of_its_own_range():
    map = np.arange(PANEL * PANEL, dtype=np.float32).reshape(PANEL, PANEL)
    pictures = [shade(map), shade(map * 1000 - 7)]
    assert pictures[0].shape == (PANEL, PANEL, 3)
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() <= 2
    assert pictures[0][0, 0].tolist() == [68, 1, 84]  # the ends of viridis
    assert pictures[0][-1, -1].tolist() == [253, 231, 36]
    assert pictures[0][PANEL // 2, 0] == pytest.approx([33, 145, 140], abs=3)  # its middle
    bright = np.where(map >= map.max() - 5, 1e9, map)  # few enough to be left out
    assert np.abs(pictures[0].astype(int) - shade(bright)).max() <= 2
    flat, lonely = np.zeros((8, 4), np.float32), np.zeros((PANEL, PANEL), np.float32)
    lonely[3, 3] = 1
    assert len(np.unique(shade(flat))) <= 3
    assert shade(flat).shape == (PANEL, PANEL // 2, 3)
    assert shade(lonely)[3, 3].tolist() == [253, 231, 36]
