import json
import pickle
from dataclasses import replace

import pytest
import torch
from nets import card
from safetensors.torch import save_file

from fcntile.errors import ModelError
from fcntile.models.card import MAX_VALUE, Card, ModelClass
from fcntile.models.model_file import CARD_KEY, bundled_models, load_model, save_model
from fcntile.models.registry import create_model
from fcntile.raster.classes import UNKNOWN

BARE = '{"format": 1, "name": "x", "bands": %s}'
FCN = {"width": 2, "head": 4, "batch_norm": True}


def test_a_model_comes_back_as_it_was(tmp_path):
    torch.manual_seed(0)
    made = card("fcn8s", arch_options=FCN, resolution=0.15, licence="CC0-1.0")
    net = create_model("fcn8s", 3, 3, **FCN).eval()
    save_model(tmp_path / "m.safetensors", net, made)
    model = load_model(tmp_path / "m.safetensors")
    x = torch.randn(1, 3, 64, 64)
    assert model.card == made
    assert torch.equal(model.net(x), net(x))
    assert not model.net.training


def test_half_precision_weights_are_computed_with_in_float32(tmp_path):
    made = card("fcn8s", arch_options=FCN)
    save_model(tmp_path / "m.safetensors", create_model("fcn8s", 3, 3, **FCN).half(), made)
    assert load_model(tmp_path / "m.safetensors").net.score_fr.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        (torch.complex64, "has in score.weight a tensor of torch.complex64, wanted are real"),
        (torch.uint8, "has in score.weight a tensor of torch.uint8"),
        (torch.float4_e2m1fn_x2, "are not those of pixel.*Float4"),
    ],
)
def test_weights_that_are_no_real_floats_are_refused(dtype, words, tmp_path):
    net = create_model("pixel", 3, 3)
    odd = torch.zeros(3, 3, 1, dtype.itemsize, dtype=torch.uint8).view(dtype)
    net.score.weight = torch.nn.Parameter(odd, requires_grad=False)
    save_model(tmp_path / "m.safetensors", net, card("pixel"))
    with pytest.raises(ModelError, match=words):
        load_model(tmp_path / "m.safetensors")


def test_bundled_models_load_and_say_whose_they_are():
    for name in bundled_models():
        made = load_model(name).card
        assert made.name == name
        assert made.licence
        assert made.attribution
        assert {"images", "steps", "loss", "seed", "best_step"} <= made.training.keys()


def test_a_pickle_is_not_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("gone off").mkdir, ())

    path = tmp_path / "evil.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelError, match="not a model file"):
        load_model(path)
    assert not (tmp_path / "gone off").exists()


def test_a_missing_file_is_answered_with_the_bundled_names():
    with pytest.raises(ModelError, match=r"no model file roofs.*\(there is buildings\)"):
        load_model("roofs")


def test_weights_without_a_card_are_refused(tmp_path):
    save_file({"w": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="no fcntile card"):
        load_model(tmp_path / "w.safetensors")


def test_weights_of_another_net_are_refused(tmp_path):
    net = create_model("fcn32s", 3, 3, **FCN)
    save_model(tmp_path / "m.safetensors", net, card("fcn8s", arch_options=FCN))
    with pytest.raises(ModelError, match="not those of fcn8s"):
        load_model(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not json", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"format": 1, "name": "x"}', "cannot be read"),
        (BARE % 3, "cannot be read"),
        (BARE % "[null]", "cannot be read"),
        ('{"format": 99}', "format 99, this fcntile reads up to 1"),
    ],
)
def test_a_card_that_cannot_be_understood_is_refused(tmp_path, text, words):
    save_file({"w": torch.zeros(1)}, tmp_path / "m.safetensors", metadata={CARD_KEY: text})
    with pytest.raises(ModelError, match=words):
        load_model(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", None),
        ("format", "1"),
        ("name", 3),
        ("arch", 3),
        ("arch", None),
        ("licence", None),
        ("arch_options", []),
        ("training", "by night"),
        ("tile", 0),
        ("tile", 512.0),
        ("tile", True),
        ("tile", 10**30),
        ("overlap", 128.0),
        ("overlap", -1),
        ("resolution", 0),
        ("resolution", float("inf")),
        ("scale", 0),
        ("scale", float("nan")),
        ("scale", 10**400),
        ("offset", None),
        ("dtype", []),
        ("bands", [{"name": 1, "mean": 0, "std": 1}]),
        ("bands", [{"name": "red", "mean": None, "std": 1}]),
        ("bands", [{"name": "red", "mean": float("nan"), "std": 1}]),
        ("bands", [{"name": "red", "mean": 0, "std": float("inf")}]),
        ("classes", {}),
        ("classes", [{"name": None, "color": "#000000"}]),
        ("classes", [{"name": "x", "color": 3}]),
    ],
)
def test_a_card_of_other_kinds_of_values_is_refused(field, value):
    content = json.loads(card("pixel").to_json()) | {field: value}
    with pytest.raises(ModelError, match=field.removesuffix("s").removesuffix("e")):
        Card.from_json(json.dumps(content))


def test_a_card_without_end_is_refused():
    with pytest.raises(ModelError, match="cannot be read"):
        Card.from_json("[" * 100_000)


def test_a_file_written_over_is_noticed_and_one_in_its_place_is_not(tmp_path):
    made = card("fcn8s", arch_options=FCN)
    path, other = tmp_path / "m.safetensors", tmp_path / "other.safetensors"
    for file in (path, other):
        save_model(file, create_model("fcn8s", 3, 3, **FCN), made)
    model, content = load_model(path), other.read_bytes()
    model.check_unchanged()
    path.touch()
    model.check_unchanged()
    with path.open("r+b") as file:
        file.write(content)
    with pytest.raises(ModelError, match=r"written over since the run began.*--restart"):
        model.check_unchanged()
    model = load_model(path)
    other.replace(path)
    model.check_unchanged()
    path.unlink()
    model.check_unchanged()


def test_a_card_keeps_its_promises():
    good = card("pixel")
    assert Card.from_json(good.to_json()) == good
    assert json.loads(good.to_json())["bands"][0] == {"name": "red", "mean": 128.0, "std": 64.0}
    with pytest.raises(ModelError, match="deviation"):
        card("pixel", std=0)
    with pytest.raises(ModelError, match="dtype 'complex64' is none of uint8"):
        card("pixel", dtype="complex64")
    with pytest.raises(ModelError, match="1 to 32768 classes"):
        replace(good, classes=(ModelClass("x", "#000000"),) * 32769)
    with pytest.raises(ModelError, match="colour 'red'"):
        replace(good, classes=(ModelClass("x", "red"),))


def test_the_value_of_a_class_is_its_position_unless_the_card_gives_one():
    old = json.loads(card("pixel").to_json())
    for c in old["classes"]:
        del c["value"]  # as cards had it before
    assert Card.from_json(json.dumps(old)).values == (0, 1, 2)
    made = card("pixel", values=[11, 42, 21])
    assert Card.from_json(made.to_json()).values == made.values == (11, 42, 21)


@pytest.mark.parametrize("value", [-1, 65534, 1.0, True, "1"])
def test_values_that_a_mask_cannot_hold_are_refused(value):
    assert card("pixel", values=[0, MAX_VALUE]).values == (0, UNKNOWN - 1)
    with pytest.raises(ModelError, match=r"class value .* is no integer from 0 to 65533"):
        card("pixel", values=[0, value])


def test_two_classes_cannot_have_one_value():
    with pytest.raises(ModelError, match="2 classes have the value 7"):
        card("pixel", values=[7, 1, 7])
    with pytest.raises(ModelError, match="2 classes have the value 1"):
        card("pixel", values=[1, None])  # the second one's position
