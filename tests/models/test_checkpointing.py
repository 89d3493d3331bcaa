"""Training with activation checkpointing is training."""

import pytest
import torch

from fcntile.models import create_model


def trained(name, checkpointing, options):
    """Return losses, weights and statistics after some steps, and the bytes kept for backward."""
    torch.manual_seed(0)
    net = create_model(name, 3, 2, **options, checkpointing=checkpointing)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    x = torch.randn(2, 3, 64, 64)
    losses, kept = [], 0

    def keep(tensor):
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    for step in range(3):
        torch.manual_seed(step)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            loss = net(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, net.state_dict(), kept


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fc-densenet56", {"growth": 4, "stem": 8}),
        ("full-resolution", {"width": 8, "head": 32, "batch_norm": True, "height_bands": 1}),
    ],
)
def test_it_gives_the_same_net_in_less_memory(name, options):
    losses, weights, kept = trained(name, False, options)
    again, same_weights, less = trained(name, True, options)
    assert again == losses
    for key, value in weights.items():
        assert torch.equal(same_weights[key], value), key  # batch norms count each batch once
    assert less < kept / 2
