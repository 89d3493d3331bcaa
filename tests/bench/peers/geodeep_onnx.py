"""GeoDeep's command line on a model exported by `export_onnx.py`: IMAGE MODEL.onnx MASK.

It reads windows, centre-crops labels and smooths the whole mask by a median filter; no blending.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def main(image, model, mask):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that geodeep ends too
    start = time.perf_counter()
    program = Path(sys.executable).with_name("geodeep")
    threads = str(len(os.sched_getaffinity(0)))
    subprocess.run(
        [program, image, model, "-t", "mask", "-o", mask, "-q", "--max-threads", threads],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    print(json.dumps({"seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main(*sys.argv[1:4])
