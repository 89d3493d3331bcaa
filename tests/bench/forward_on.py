"""Only the forward passes on a device, in predict's own batches: the floor of its time there.

    python forward_on.py MODEL SIDE DEVICE PRECISION

SIDE is that of a square raster in px. The first batch, at which a GPU's libraries choose and load
their kernels, does not count; nor does it in what predict takes beyond one tile.
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from forward import shapes  # knows the test nets

from fcntile.cli import importing

with importing.quick():
    import torch

    from fcntile.inference.devices import exact_fp32, make_plan
    from fcntile.inference.heap import keep_freed_memory
    from fcntile.models.layers import prepare
    from fcntile.models.model_file import load_model


def finish(device):
    """Wait for what a GPU still computes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(name, side, device, precision):
    keep_freed_memory()  # as predict does
    torch.set_num_threads(1)
    plan, model = make_plan(device, precision), load_model(name)
    device, dtype = plan.device, plan.precision
    exact_fp32(device)
    net = prepare(model.net, device, dtype, len(model.card.classes))
    tiles = shapes(model.net, int(side), plan.batch_size)
    made = {
        shape: torch.randn(plan.batch_size, len(model.card.bands), *shape, device=device).to(
            memory_format=torch.channels_last
        )
        for shape in set(tiles)
    }
    todo = [made[shape] for shape in tiles[:: plan.batch_size]]  # those of a batch are alike

    @torch.inference_mode()
    def run(x):
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            net(x)

    with ThreadPoolExecutor(plan.workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        pool.submit(run, todo[0]).result()
        finish(device)
        start = time.perf_counter()
        list(pool.map(run, todo[1:]))
        finish(device)
        seconds = time.perf_counter() - start
    on = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    print(json.dumps({"seconds": seconds, "device": on}), flush=True)
    os._exit(0)  # as the command does


if __name__ == "__main__":
    main(*sys.argv[1:])
