import torch
from torch import nn

from fcntile.models import create_model
from fcntile.models.layers import fold_batch_norm


def test_a_folded_net_gives_the_same_logits():
    torch.manual_seed(0)
    net = create_model("fcn8s", 3, 2, width=4, head=8, batch_norm=True)
    net(torch.randn(4, 3, 64, 64))  # in training mode: running statistics of their own
    net.eval()
    folded = fold_batch_norm(net)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    x = torch.randn(2, 3, 64, 64)
    assert torch.allclose(folded(x), net(x), atol=1e-5)
