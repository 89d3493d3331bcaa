"""The programs that are compared, and what they need: models, rasters, packages, memory."""

import os
import subprocess
import sys
from collections import namedtuple
from importlib.util import find_spec
from pathlib import Path

from runs import run

HERE = Path(__file__).parent
PYTHON = sys.executable
TILE, OVERLAP = 512, 128
GTIFF, COG = "fcntile predict, GeoTIFF", "fcntile predict, COG"
ALL = f"fcntile predict, GeoTIFF, overlap {OVERLAP}"  # as the others, where it takes less by itself
FORWARD, SAME = "forward only", "forward only, predict's batches"

# `size` is the memory it takes per pixel with six classes, in bytes
Peer = namedtuple("Peer", "script options packages blends size")
PEERS = {
    "plain script": Peer("peers/plain.py", (), (), True, 68),
    "MONAI, gaussian": Peer("peers/monai_window.py", (), ("monai",), True, 54),
    "MONAI, buffered": Peer("peers/monai_window.py", ("--buffered",), ("monai",), True, 56),
    "pytorch-toolbelt": Peer(
        "peers/toolbelt_merger.py", (), ("pytorch_toolbelt", "cv2", "scipy"), True, 48
    ),
    "GeoDeep": Peer("peers/geodeep_onnx.py", (), ("geodeep", "onnx", "onnxruntime"), False, 6),
}
INSTALL = "make bench installs it; tests/bench/README.md says how to by hand"


def make(script, output, *arguments):
    """Let a script write `output`, unless it is there; return its path."""
    if not output.exists():
        partial = output.with_name(f"partial-{output.name}")
        done = subprocess.run(
            [PYTHON, HERE / script, *(a if a is not ... else partial for a in arguments)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"{script} failed: {done.stderr[-2000:]}")
        partial.rename(output)
    return output


def raster(work, width, height, empty=0.0):
    output = work / f"raster_{width}x{height}_{empty:g}.tif"
    return make("rasters.py", output, ..., str(width), str(height), str(empty))


def model(work, net):
    """Return the model file of a net of models.py; "bundled" is the one inside fcntile."""
    if net == "bundled":
        return "buildings"
    return make("models.py", work / f"{net}.safetensors", ..., net)


def predict(image, model, mask, driver="GTiff", overlap=None):
    """Return the command.

    Cards say an overlap of 128 px; unless told to, predict takes less where less is enough.
    """
    grid = ["--tile", TILE, *(["--overlap", overlap] if overlap else []), "--format", driver]
    program = [PYTHON, HERE / "fcntile_with_test_nets.py", "predict", image, "-o", mask]
    return [*program, "--model", model, *grid, "--overwrite", "--restart", "--json"]


def forward(model, side):
    """Return the commands of forward passes over a square, and what was tried.

    They are in the fastest arrangement, and, if that is another, in predict's own.
    """
    script = [PYTHON, HERE / "forward.py", model, side]
    tried = run([*script, "--choose"])["json"]
    made = {FORWARD: [*script, tried["fastest"]]}
    if tried["fastest"] != "workers":
        made[SAME] = [*script, "workers"]
    return made, tried


def installed(name):
    return all(find_spec(package) for package in PEERS[name].packages)


def fits(name, pixels):
    """Say whether a peer's arrays fit the memory that is free."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    info = Path("/proc/meminfo")
    if info.exists():  # free, or only a cache of files
        lines = dict(line.split(":") for line in info.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    return PEERS[name].size * pixels + 0.7e9 < free


def wanted(parts):
    """Return the peers whose names have one of these parts; None means all."""
    return [n for n in PEERS if parts is None or any(p and p.lower() in n.lower() for p in parts)]


def peers(work, net, args):
    """Return the commands of the peers that are wanted and here, with IMAGE and MASK left open."""
    made = {}
    for name in filter(installed, wanted(args.peers)):
        peer, file = PEERS[name], model(work, net)
        if name == "GeoDeep":
            file = make("export_onnx.py", work / f"{net}.onnx", file, ...)
        options = [*peer.options, *(["--quick-labels"] if args.quick_labels else [])]
        made[name] = [PYTHON, HERE / peer.script, "IMAGE", file, "MASK", *options]
    return made
