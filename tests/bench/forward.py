"""Only the forward pass, as often as `fcntile predict` needs it: the floor of its time.

    python forward.py MODEL TILES

The net as the engine runs it: folded, channels last, one torch thread per worker, batch 1.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import nets  # noqa: F401
import torch

from fcntile.inference.devices import available_cpus
from fcntile.models.layers import fold_batch_norm
from fcntile.models.model_file import load_model


def main(name, tiles):
    model = load_model(name)
    net = fold_batch_norm(model.net).to(memory_format=torch.channels_last)
    x = torch.randn(1, len(model.card.bands), 512, 512).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def forward(_):
        net(x)

    start = time.perf_counter()
    with ThreadPoolExecutor(
        available_cpus(), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        list(pool.map(forward, range(tiles)))
    print(json.dumps({"seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
