"""Gradients against composed kernels, impulse responses, and the intervals of the layers."""

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from torch import nn

from fcntile.errors import ModelError
from fcntile.models import create_model
from fcntile.models.effective_field import EffectiveField, measure_field, spread_places
from fcntile.models.reach import receptive_field


def extent(gradient):
    """Return first and last offset of what is not zero, along rows and columns."""
    middle = gradient.shape[0] // 2
    rows = gradient.sum(1).nonzero()[:, 0] - middle
    columns = gradient.sum(0).nonzero()[:, 0] - middle
    return rows.min().item(), rows.max().item(), columns.min().item(), columns.max().item()


def test_the_field_of_a_linear_net_is_its_composed_kernel():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, bias=False),
        nn.Conv2d(3, 1, 5, padding=4, dilation=2, bias=False),
    ).double()
    size = 33
    field = measure_field(net, torch.randn(1, 2, size, size).double(), [(16, 16), (15, 17)])
    first, second = (layer.weight.detach().numpy() for layer in net)
    spaced = np.zeros((3, 9, 9))
    spaced[:, ::2, ::2] = second[0]
    expected = sum(
        np.abs(sum(convolve2d(first[c, band], spaced[c]) for c in range(3))) for band in range(2)
    )
    assert expected.shape == (11, 11)
    assert receptive_field(net) == 11
    assert extent(field.gradient) == (-5, 5, -5, 5)
    middle = size - 1
    here = slice(middle - 5, middle + 6)
    np.testing.assert_allclose(field.gradient[here, here], expected, rtol=1e-12)
    assert field.gradient.sum().item() == pytest.approx(expected.sum())


def test_places_between_the_strides_are_averaged():
    """Impulses through a linear net, forward only, say what every place depends on."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2, padding=1, bias=False),
        nn.ConvTranspose2d(2, 1, 4, stride=2, padding=1, bias=False),
    ).double()
    size, places = 16, [(8, 8), (8, 9), (9, 8), (9, 9)]
    field = measure_field(net, torch.randn(1, 1, size, size).double(), places)
    with torch.no_grad():
        impulses = torch.eye(size * size).double().reshape(-1, 1, size, size)
        response = net(impulses)[:, 0].reshape(size, size, size, size)
    expected = torch.zeros(2 * size - 1, 2 * size - 1).double()
    for row, column in places:
        for i in range(size):
            for j in range(size):
                offset = size - 1 + i - row, size - 1 + j - column
                expected[offset] += response[i, j, row, column].abs() / len(places)
    assert torch.allclose(field.gradient, expected, atol=1e-12)
    assert field.places == 4


def test_the_best_class_counts():
    net = nn.Conv2d(1, 2, 3, padding=1, bias=False).double()
    with torch.no_grad():
        net.weight[0], net.weight[1] = 1, 0
        net.weight[1, 0, 1, 1] = 5
    ones = torch.ones(1, 1, 9, 9).double()  # logits 9 and 5
    assert measure_field(net, ones, [(4, 4)]).side(0.99) == 3
    assert measure_field(net, -ones, [(4, 4)]).side(0.99) == 1  # -9 and -5


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("fcn2s-small", {"width": 4, "head": 4}, 64),
        ("full-resolution", {"width": 4, "head": 4}, 104),
        ("fcn8s", {"width": 1, "head": 1}, 512),
    ],
)
def test_nothing_beyond_the_theoretical_field_has_a_gradient(name, options, size):
    torch.manual_seed(0)
    net = create_model(name, 1, 2, **options).eval()
    with torch.no_grad():  # all weights positive: no path can cancel or die in a ReLU
        for p in net.parameters():
            p.abs_()
    places = spread_places(size, size, net.stride, net.receptive_field)
    widest = 0
    for place in places[::8]:
        field = measure_field(net, torch.rand(1, 1, size, size), [place])
        top, bottom, left, right = extent(field.gradient)
        assert max(bottom - top, right - left) + 1 <= net.receptive_field
        widest = max(widest, bottom - top + 1, right - left + 1)
    # max pooling passes one of four gradients, so the rim is reached now and then only
    assert widest > 0.8 * net.receptive_field


def test_squares_hold_their_share():
    gradient = torch.zeros(9, 13, dtype=torch.double)
    gradient[4, 6] = 90  # the middle
    gradient[3, 7] = 6
    gradient[4, 1] = 3
    gradient[8, 6] = 1
    field = EffectiveField(gradient, 1)
    assert field.shares().tolist() == pytest.approx([0.9, 0.96, 0.96, 0.96, 0.97, 1, 1])
    assert [field.side(share) for share in (0.5, 0.95, 0.965, 0.99)] == [1, 3, 9, 11]
    assert field.radius(0.99) == 5


@pytest.mark.parametrize(
    ("size", "stride", "receptive_field"),
    [(512, 32, 468), (1024, 32, 468), (256, 1, 99), (1, 1, 1), (32, 32, 468), (64, 2, 22)],
)
def test_places_have_every_phase_and_leave_room_for_their_fields(size, stride, receptive_field):
    places = spread_places(size, size, stride, receptive_field)
    rows = sorted({row for row, _ in places})
    assert {(row, column) for row in rows for column in rows} == set(places)
    assert len(places) == len(set(places))
    assert {row % stride for row in rows} == {i * stride // 4 for i in range(4)}
    assert min(rows) >= 0
    assert max(rows) < size
    margin = (max(size - receptive_field, size // 4) + stride) / 2
    assert abs(rows[0] - size / 2) <= margin
    assert abs(rows[-1] - size / 2) <= margin + stride


def test_a_net_without_a_gradient_is_an_error():
    net = nn.Conv2d(1, 1, 3, padding=1)
    nn.init.zeros_(net.weight)
    with pytest.raises(ModelError, match="choose another window"):
        measure_field(net, torch.ones(1, 1, 8, 8), [(4, 4)])
    nn.init.constant_(net.weight, float("nan"))
    with pytest.raises(ModelError, match="no number"):
        measure_field(net, torch.ones(1, 1, 8, 8), [(4, 4)])
