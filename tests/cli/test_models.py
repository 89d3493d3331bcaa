"""`fcntile models` and `fcntile info`."""

import json

import pytest
from click.testing import CliRunner
from nets import NETWORKS, save_test_model

from fcntile.cli.main import main


def run(*arguments):
    return CliRunner().invoke(main, list(arguments))


def test_models_lists_every_network():
    done = run("models", "--json")
    assert done.exit_code == 0
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert set(NETWORKS) <= set(rows)
    assert rows["fcn8s"] == {
        "name": "fcn8s",
        "parameters": 134_368_799,
        "gmac_512": 110.86,
        "stride": 32,
        "receptive_field": 468,
        "halo": 224,
        "paper": "arXiv 1411.4038",
    }
    thread = rows["mirror-vgg-thread"]
    assert thread["halo"] is None
    assert thread["gmac_512"] is None  # it takes tiles of 224 px
    lines = run("models").stdout.splitlines()
    assert lines[0].split()[:2] == ["network", "parameters"]
    assert [line.split()[0] for line in lines[1:]] == list(rows)


def test_info_shows_every_layer_for_any_size():
    done = run("info", "fcn8s", "--size", "64x96", "--bands", "4", "--classes", "5", "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    shapes = {layer["name"]: layer["shape"] for layer in found["layers"]}
    assert shapes["block1.1_1.conv1_1"] == [64, 64, 96]
    assert shapes["block5.pool"] == [512, 2, 3]
    assert shapes["fc6.conv6"] == [4096, 2, 3]
    assert shapes["upscore"] == [5, 64, 96]
    assert found["size"] == [64, 96]
    assert sum(layer["parameters"] for layer in found["layers"]) == found["parameters"]
    text = run("info", "fcn8s").stdout
    assert "134,368,799 parameters (537.5 MB), 110.86 GMAC a tile" in text
    assert "stride 32 px, receptive field 468 px, halo 224 px" in text


def test_info_says_the_limits_of_a_network():
    assert "no halo makes its tiles agree" in run("info", "mirror-vgg-thread").stdout
    assert json.loads(run("info", "mirror-vgg", "--json").stdout)["limits"] == ""


def test_info_of_a_model_has_its_bands_and_classes(tmp_path):
    path = save_test_model(tmp_path / "m.safetensors", "probe", bands=5, classes=7, tile=64)
    found = json.loads(run("info", str(path), "--json").stdout)
    assert (found["bands"], found["classes"], found["size"]) == (5, 7, [64, 64])
    assert found["layers"][-1]["shape"] == [7, 64, 64]
    assert run("info", "buildings").exit_code == 0
    refused = run("info", str(path), "--bands", "3")
    assert refused.exit_code == 2
    assert "are in its file" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["unet"], "neither a model file nor a bundled model (buildings) nor a network"),
        (["x" * 5000], "neither a model file nor a bundled model (buildings) nor a network"),
        (["fcn8s", "--arch-option", f"width={'[' * 9999}"], "option width of fcn8s is '[["),
        (["fcn8s", "--size", "100"], "no tile of 100 x 100 px: use multiples of 32"),
        (["fcn32s", "--size", "100x64"], "no tile of 100 x 64 px: use multiples of 32"),
        (["fcn8s", "--size", "0x5"], "is not HEIGHTxWIDTH"),
        (["fcn8s", "--size", "99999999"], "is not HEIGHTxWIDTH in px, at most 999999"),
        (["mirror-vgg-thread", "--size", "256"], "takes tiles of 224 px only"),
        (["fcn8s", "--arch-option", "depth=3"], "fcn8s has no option 'depth'"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_sentence(arguments, words):
    done = run("info", *arguments)
    assert done.exit_code != 0
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_model_shows_its_card():
    text = run("info", "buildings").stdout
    for line in (
        "network     fcn8s-small",
        "class       1 building #e6194b",
        "pixel       0.149 m",
    ):
        assert line in text.splitlines()
    card = json.loads(run("info", "buildings", "--json").stdout)["card"]
    assert [band["name"] for band in card["bands"]] == ["red", "green", "blue"]
    assert json.loads(run("info", "fcn8s", "--json").stdout)["card"] is None
