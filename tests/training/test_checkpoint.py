"""Checkpoints hold all that the next update needs."""

import json
import math
import pickle
import resource

import pytest
import torch
from nets import card, save_test_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fcntile.errors import ModelError, OutputError
from fcntile.inference.devices import make_plan
from fcntile.models.registry import create_model
from fcntile.raster.classes import UNLABELLED
from fcntile.training.checkpoint import read_state
from fcntile.training.distributed import Group
from fcntile.training.recipes import Settings
from fcntile.training.trainer import Trainer

OPTIONS = {"width": 4, "head": 8, "batch_norm": True, "dropout": 0.5}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trainer(seed=0, bands=3, **changes):
    """Return a small FCN-8s with dropout and batch norms, before its first step."""
    torch.manual_seed(seed)
    settings = Settings(steps=9, warmup=4, **changes)
    made = card("fcn8s", bands=bands, arch_options=OPTIONS)
    net = create_model("fcn8s", bands, 3, **OPTIONS)
    return Trainer(net, made, settings, None, make_plan("cpu", threads=1), Group())


def batches(first, count):
    """Yield the batches of some steps: what they are depends on their number only."""
    for number in range(first, first + count):
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(2, 3, 64, 64, generator=generator)
        y = torch.randint(0, 3, (2, 64, 64), generator=generator)
        y[:, :9] = UNLABELLED
        yield x.contiguous(memory_format=torch.channels_last), y


def steps(trainer, first, count):
    made = batches(first * trainer.settings.accumulate, count * trainer.settings.accumulate)
    return [trainer.step(number, made) for number in range(first, first + count)]


def state(trainer):
    """Return every number in a trainer, by name."""
    modules = {"net": trainer.net, "average": trainer.average}
    found = {
        f"{kind}.{name}": tensor.clone()
        for kind, module in modules.items()
        if module is not None
        for name, tensor in module.state_dict().items()
    }
    slots = trainer.optimizer.state_dict()["state"]
    return found | {
        f"optimizer.{i}.{name}": tensor.clone() for i in slots for name, tensor in slots[i].items()
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"ema": 0.9},
        {"ema": 0.9, "optimizer": "sgd", "lr": 0.01},
        {"ema": 0.0, "accumulate": 2, "loss": "ce+dice+focal"},
        {"ema": 0.9, "precision": "bf16"},
    ],
    ids=["adamw", "sgd", "accumulate", "bf16"],
)
def test_a_trainer_goes_on_from_a_checkpoint_bit_for_bit(tmp_path, changes):
    path, first = tmp_path / "c.safetensors", trainer(**changes)
    steps(first, 0, 3)
    first.save(path, {"done": 3})
    expected = steps(first, 3, 3)
    second = trainer(seed=9, **changes)
    second.load(path, read_state(path))
    assert read_state(path)["done"] == 3
    assert steps(second, 3, 3) == expected
    now = state(second)
    assert now.keys() == state(first).keys()
    for name, tensor in state(first).items():
        assert torch.equal(now[name], tensor), name


def test_a_checkpoint_before_the_first_step_is_whole(tmp_path):
    first, second = trainer(), trainer(seed=9)
    first.save(tmp_path / "c.safetensors", {})
    second.load(tmp_path / "c.safetensors", read_state(tmp_path / "c.safetensors"))
    assert steps(second, 0, 2) == steps(first, 0, 2)


def test_saving_changes_nothing(tmp_path):
    one, other = trainer(), trainer()
    for number in range(3):
        one.save(tmp_path / "c.safetensors", {})
        assert steps(one, number, 1) == steps(other, number, 1)


def test_a_loss_that_is_not_finite_changes_no_weight():
    made = trainer()
    steps(made, 0, 2)
    before = state(made)
    x, y = next(batches(2, 1))
    x[0, 0, 0, 0] = torch.inf
    loss, _ = made.step(2, iter([(x, y)]))
    assert not math.isfinite(loss)
    trained = {f"net.{name}" for name, _ in made.net.named_parameters()}
    for name, tensor in state(made).items():
        if name in trained or not name.startswith("net."):
            assert torch.equal(tensor, before[name]), name


def test_what_is_no_checkpoint_of_the_net_is_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    made = trainer()
    made.save(path, {})
    whole = path.read_bytes()
    with pytest.raises(ModelError, match="not a checkpoint of this run"):
        trainer(bands=4).load(path, read_state(path))
    for content in (whole[: len(whole) // 2], b"", pickle.dumps({"net": [1, 2]})):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="not a checkpoint of fcntile"):
            read_state(path)
    with pytest.raises(ModelError, match="not a checkpoint of fcntile"):
        read_state(save_test_model(tmp_path / "m.safetensors", "pixel"))


@pytest.mark.parametrize(
    ("change", "gone", "flat"),
    [
        ({"done": "3"}, None, None),
        ({"done": 1e9}, None, None),
        ({"rows": {}}, None, None),
        ({}, "optimizer.0.exp_avg", None),
        ({}, "optimizer.", None),
        ({}, None, "optimizer.1.exp_avg_sq"),
    ],
)
def test_a_checkpoint_that_is_not_as_it_was_written_is_refused(tmp_path, change, gone, flat):
    path, made = tmp_path / "c.safetensors", trainer()
    steps(made, 0, 1)
    made.save(path, {"done": 3, "rows": []})
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    changed = {**read_state(path), **change}
    metadata["fcntile_checkpoint"] = json.dumps(changed)
    tensors = {
        key: tensor.flatten() if key == flat else tensor
        for key, tensor in load_file(path).items()
        if not (gone and key.startswith(gone))
    }
    save_file(tensors, path, metadata)
    with pytest.raises(ModelError, match=r"c\.safetensors is damaged: begin the run anew"):
        read_state(path)


def test_a_state_that_is_none_is_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    for text in ("7", "{", "[" * 100_000):
        save_file({"net.a": torch.zeros(1)}, path, {"fcntile_checkpoint": text})
        with pytest.raises(ModelError, match="is damaged"):
            read_state(path)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    """A limit on file size stands in for the full disk: the same failing write."""
    path, made = tmp_path / "c.safetensors", trainer()
    steps(made, 0, 1)
    made.save(path, {"done": 1})
    before = path.read_bytes()
    steps(made, 1, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OutputError, match="is the disk full"):
            made.save(path, {"done": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before
