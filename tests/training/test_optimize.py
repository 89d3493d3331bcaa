"""Learning rates, decay and the moving average."""

import pytest
import torch
from torch import nn

from fcntile.errors import OptionError
from fcntile.models import create_model
from fcntile.training.optimize import (
    learning_rate,
    make_optimizer,
    moving_average,
    set_learning_rate,
)
from fcntile.training.recipes import RECIPES, Settings, make_settings


@pytest.mark.parametrize("schedule", ["cosine", "poly"])
def test_the_rate_rises_and_falls_to_nothing(schedule):
    settings = Settings(steps=1000, warmup=100, lr=0.1, schedule=schedule)
    rates = [learning_rate(step, settings) for step in range(1000)]
    assert rates[0] == pytest.approx(0.001, rel=0.01)
    assert rates[:100] == sorted(rates[:100])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert max(rates) == pytest.approx(0.1, rel=0.15)
    assert rates[-1] < 0.001


def test_poly_matches_torch():
    settings = Settings(steps=50, warmup=0, lr=0.1, schedule="poly")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    wanted = torch.optim.lr_scheduler.PolynomialLR(optimizer, 50, power=0.9)
    for step in range(50):
        assert learning_rate(step, settings) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        wanted.step()


def test_kernels_decay_and_biases_do_not():
    net = create_model("fcn8s", 3, 2, width=4, head=8)
    settings = make_settings("fcn-heavy")
    optimizer = make_optimizer(net, settings)
    set_learning_rate(optimizer, 0.5)
    kernels, biases = optimizer.param_groups
    assert (kernels["weight_decay"], kernels["lr"]) == (5e-4 / 512**2, 0.5)
    assert (biases["weight_decay"], biases["lr"]) == (0.0, 1.0)
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in net.parameters() if p.requires_grad} == trained
    assert not any(id(p) in trained for p in net.upscore.parameters())  # bilinear, fixed


def test_the_average_follows_and_forgets_the_start():
    net = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    with torch.no_grad():
        net[0].weight.fill_(100)
    average = moving_average(net, 0.9)
    with torch.no_grad():
        for _ in range(60):
            net[0].weight.fill_(1)
            net[1].running_mean.fill_(3)
            net[1].num_batches_tracked.add_(1)
            average.update_parameters(net)
    assert average.module[0].weight.item() == pytest.approx(1, abs=0.01)
    assert average.module[1].running_mean.item() == pytest.approx(3, abs=0.01)
    assert average.module[1].num_batches_tracked == 60
    assert not average.module.training


def test_recipes_are_the_published_ones():
    heavy = make_settings("fcn-heavy")
    assert heavy.lr == pytest.approx(1e-10 * 512 * 512)  # the loss there is a sum over pixels
    assert (heavy.momentum, heavy.batch_size) == (0.99, 1)
    assert (heavy.steps, heavy.schedule, heavy.bias_lr) == (100_000, "constant", 2.0)
    assert make_settings("fcn-heavy-16s").lr == pytest.approx(1e-12 * 512 * 512)
    assert make_settings("fcn-heavy-8s").lr == pytest.approx(1e-14 * 512 * 512)
    assert make_settings("fcn-heavy", window=256).lr == pytest.approx(1e-10 * 256 * 256)
    assert make_settings("fcn-heavy", window=256, lr=0.1).lr == 0.1
    assert make_settings("fcn-heavy-atonce").steps == 300_000
    cvpr = make_settings("fcn-cvpr")
    assert (cvpr.lr, cvpr.momentum, cvpr.batch_size) == (1e-4, 0.9, 20)
    for name in RECIPES:
        assert make_settings(name, steps=7).steps == 7


@pytest.mark.parametrize("window", [512, 64])
def test_the_mean_loss_makes_the_updates_of_the_summed_one(window):
    settings = make_settings("fcn-heavy", window=window)
    torch.manual_seed(0)
    x, y = torch.randn(1, 2, window, window), torch.randint(3, (1, window, window))
    ours, caffes = (nn.Conv2d(2, 3, 1, bias=False) for _ in range(2))
    caffes.load_state_dict(ours.state_dict())
    optimizer = make_optimizer(ours, settings)
    set_learning_rate(optimizer, learning_rate(0, settings))
    # as Caffe's solver has it, with the numbers of the reference implementation
    wanted = torch.optim.SGD(caffes.parameters(), lr=1e-10, momentum=0.99, weight_decay=5e-4)
    for net, solver, reduction in ((ours, optimizer, "mean"), (caffes, wanted, "sum")):
        for _ in range(3):
            solver.zero_grad()
            loss = nn.functional.cross_entropy(net(x).double(), y, reduction=reduction)
            (loss * 1e4).backward()  # or the updates would vanish in float32
            solver.step()
    moved = (ours.weight - caffes.weight).abs().max()
    assert moved <= 1e-6 * caffes.weight.abs().max()
    assert settings.lr * settings.weight_decay == pytest.approx(1e-10 * 5e-4)  # too small to see


@pytest.mark.parametrize(
    "given",
    [
        {"recipe": "none"},
        {"ema": 1.0},
        {"scale": 0.5},
        {"val_share": 1},
        {"steps": 0},
        {"optimizer": "rmsprop"},
        {"loss": "mse"},
        {"loss": "ce+0*dice"},
        {"epochs": 5},
    ],
)
def test_settings_that_cannot_be_are_refused(given):
    with pytest.raises(OptionError):
        make_settings(**given)
