"""How much memory a forward pass takes at its fullest moment."""

import torch
from torch import Tensor, fx

from fcntile.models.reach import trace
from fcntile.models.registry import Net

SIDE = 128  # px of the tile that is tried, or the next multiple of the net's stride


def pixel_bytes(net: Net, bands: int) -> float:
    """Return the bytes of all maps held at a time, in float32, for each pixel of a tile.

    A small tile goes through the net step by step. What kernels need for themselves is not in it.

    Args:
        net: on the CPU.
        bands: channels of the tile.
    """
    side = net.size or -(-SIDE // net.stride) * net.stride
    walk = _Walk(net, graph=trace(net))
    with torch.inference_mode():
        walk.run(torch.zeros(1, bands, side, side))
    return walk.peak / side**2


class _Walk(fx.Interpreter):
    """Runs a net step by step and weighs what is held after each."""

    peak = 0

    def run_node(self, n: fx.Node) -> object:
        """Run a step; what it needed is still held."""
        made: object = super().run_node(n)
        held = [*self.env.values(), made]
        maps = [m for h in held for m in (h if isinstance(h, tuple) else (h,))]
        sizes = {
            m.untyped_storage().data_ptr(): m.untyped_storage().nbytes()
            for m in maps
            if isinstance(m, Tensor)
        }
        self.peak = max(self.peak, sum(sizes.values()))
        return made
