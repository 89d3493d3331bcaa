"""`fcntile train` as it is typed, in processes of its own, on real files."""

import contextlib
import csv
import fcntl
import json
import os
import pty
import re
import resource
import signal
import struct
import subprocess
import sys
import termios
import time

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from program import FCNTILE, assert_refused, fcntile
from rasterio.transform import from_origin
from safetensors.torch import load_file

from fcntile.cli.main import main
from fcntile.models.model_file import load_model
from fcntile.training.checkpoint import read_state

START = [*FCNTILE, "train"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SMALL = [
    "--arch-option", "width=4", "--arch-option", "head=8", "--arch-option", "dropout=0.5",
    "--window", "64", "--batch-size", "2", "--warmup", "4", "--ema", "0.9",
    "--device", "cpu", "--threads", "1",
]  # fmt: skip


def train(*args, start=START, settings=SMALL, **more):
    """Run the command; return the finished process."""
    return fcntile(*settings, *args, start=start, **more)


@pytest.fixture
def scene(make_raster):
    """Write imagery of three classes in squares, and labels that lack a corner."""
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 3, (16, 16)), np.ones((16, 16), int))
    image = 60 * labels + rng.integers(0, 60, (3, 256, 256))
    labels[:120, :100] = 255
    where = {"transform": from_origin(5e5, 9e6, 10, 10)}
    return (
        make_raster(image.astype(np.uint8), **where),
        make_raster(labels[None].astype(np.uint8), "labels.tif", **where),
    )


def losses(run):
    with (run / "metrics.csv").open() as file:
        return [row["loss"] for row in csv.DictReader(file)]


def assert_same_tensors(one, other):
    a, b = load_file(one), load_file(other)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


# --- what is said -----------------------------------------------------------------------------


def test_nothing_is_said_unless_asked_for(scene, tmp_path):
    run = train(*scene, "-o", tmp_path / "m.safetensors", "--steps", 2)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert load_model(tmp_path / "m.safetensors").card.arch == "fcn8s-small"


def test_the_summary_is_json_on_stdout_and_progress_on_stderr(scene, tmp_path):
    output = tmp_path / "m.safetensors"
    options = ["--json", "--progress", "json", "--steps", 5, "--val-every", 2]
    run = train(*scene, "-o", output, *options)
    summary = json.loads(run.stdout)
    assert summary.keys() == {
        "output",
        "run",
        "arch",
        "parameters",
        "classes",
        "images",
        "steps",
        "best_step",
        "loss",
        "val",
        "seconds",
        "samples_per_second",
        "peak_rss_mb",
        "device",
    }
    assert summary["val"].keys() == {"miou", "pixel_accuracy", "iou"}
    assert summary["classes"] == {"0": "class 0", "1": "class 1", "2": "class 2"}
    assert (summary["steps"], summary["output"]) == (5, str(output))
    event = json.loads(run.stderr.splitlines()[-1])
    known = {"event", "done", "total", "seconds", "eta_seconds"}
    assert event.keys() == known | {"loss", "samples_per_second", "val_miou"}
    assert (event["done"], event["total"]) == (5, 5)
    with (tmp_path / "m.run" / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert event["loss"] == round(float(last["loss"]), 4)
    assert event["val_miou"] == round(float(last["val_miou"]), 4)
    assert event["samples_per_second"] > 0


def test_a_terminal_gets_a_bar_with_loss_and_score(scene, tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))
    command = [*START, *SMALL, *scene, "-o", str(tmp_path / "m.safetensors"), "--steps", "3"]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, check=True)
    os.close(theirs)
    with os.fdopen(ours, errors="ignore") as terminal:
        shown = ""
        with contextlib.suppress(OSError):  # how a terminal ends
            while more := terminal.read(1):
                shown += more
    assert "3/3" in shown
    assert re.search(r"loss=\d\.\d+, samples_per_second=\d+\.\d, val_miou=0\.\d+", shown)
    assert run.stdout == b""


def test_a_dry_run_shows_data_and_cost(scene, tmp_path):
    output = tmp_path / "m.safetensors"
    run = train(*scene, "-o", output, "--dry-run", "--steps", 4000, "--val-share", 0)
    assert (run.returncode, run.stderr) == (0, "")
    image, labels = scene
    assert f"{image}  256 x 256 px  labels {labels}" in run.stdout
    total = 256 * 256 - 120 * 100
    counts = re.findall(r"^\d class (\d) +([\d,]+) +(\d+)$", run.stdout, re.MULTILINE)
    assert sum(int(pixels.replace(",", "")) for _, pixels, _ in counts) == total
    assert [held_out for *_, held_out in counts] == ["0"] * 3
    assert "4,000 steps, 8,000 windows" in run.stdout
    for words in ("red", "blue", r"\d weights", "s a step: 0 h", "MB at the peak", "samples.png"):
        assert re.search(words, run.stdout), words
    assert not output.exists()
    assert [path.name for path in (tmp_path / "m.run").iterdir()] != []
    assert not list((tmp_path / "m.run").glob("*.safetensors"))


# --- stopping and going on --------------------------------------------------------------------


def stop(args, sign, seen, stderr=None):
    """Start a run and send it a signal once a file is there; return its exit code and words."""
    command = [*START, *SMALL, *map(str, args)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        until = time.monotonic() + 120
        while not seen.exists():
            assert run.poll() is None, run.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.01)
        run.send_signal(sign)
        run.wait(60)
        return run.returncode, run.stderr.read()


def test_a_run_that_was_stopped_thrice_ends_like_one_that_never_was(scene, tmp_path):
    steps = ["--steps", 40, "--val-every", 8, "--loss", "ce+dice"]
    run = train(*scene, "-o", tmp_path / "whole.safetensors", *steps)
    assert run.returncode == 0, run.stderr
    output, folder = tmp_path / "parts.safetensors", tmp_path / "parts.run"
    args = [*scene, "-o", output, *steps, "--resume"]
    done = 0
    for sign, exit_code, step in (
        (signal.SIGTERM, 143, 8),
        (signal.SIGINT, 130, 16),
        (signal.SIGKILL, -9, 32),
    ):
        code, said = stop(args, sign, folder / "samples" / f"step_{step:06d}.png")
        assert code == exit_code, said
        before, done = done, read_state(folder / "last.checkpoint.safetensors")["done"]
        assert before < done < 40
        assert not output.exists()
        if sign == signal.SIGKILL:
            assert said == ""
            assert done >= step - 8
        else:
            what = f"stopped by {sign.name} after step {done} of 40"
            assert said == f"Error: {what}: the same command with --resume goes on\n"
    assert train(*args).returncode == 0
    assert losses(folder) == losses(tmp_path / "whole.run")
    assert_same_tensors(tmp_path / "whole.safetensors", output)
    for name in ("last.checkpoint.safetensors", "best.safetensors"):
        assert_same_tensors(tmp_path / "whole.run" / name, folder / name)

    again = [*scene, "-o", tmp_path / "again.safetensors", "--run", folder, *steps]
    assert_refused(train(*again), 6, "holds a run", "--resume", "--overwrite")
    assert_refused(train(*again, "--resume", "--lr", 0.5), 2, "--lr was 0.003, is 0.5")
    assert not (tmp_path / "again.safetensors").exists()


def test_a_full_disk_leaves_the_checkpoint_to_go_on_from(scene, tmp_path):
    """A limit on file size stands in for the full disk: the same failing write."""
    output, folder = tmp_path / "m.safetensors", tmp_path / "m.run"
    args = [*scene, "-o", output, "--steps", 20, "--val-every", 5, "--resume"]
    stop(args, signal.SIGTERM, folder / "samples" / "step_000005.png")
    checkpoint = folder / "last.checkpoint.safetensors"
    before = checkpoint.read_bytes()
    limit = len(before) // 2
    run = train(*args, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert_refused(run, 6, "cannot write", "last.checkpoint.safetensors", "is the disk full?")
    assert checkpoint.read_bytes() == before
    assert not output.exists()
    assert not list(tmp_path.rglob(".*"))


# --- several processes ------------------------------------------------------------------------


def test_two_processes_do_what_one_does(scene, tmp_path):
    """Gradients are those of the joined batch, however the labels are spread over it."""
    plain = [
        "--arch", "fcn8s", "--arch-option", "width=4", "--arch-option", "head=8",
        "--arch-option", "dropout=0", "--window", "64", "--batch-size", "4", "--warmup", "0",
        "--ema", "0", "--optimizer", "sgd", "--momentum", "0", "--schedule", "constant",
        "--lr", "0.05", "--loss", "ce+dice+focal", "--class-weights", "1,3,0.5",
        "--device", "cpu", "--threads", "1", "--steps", "5", "--json", "--val-every", "9",
    ]  # fmt: skip
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    start = [*TWO, "-m", "fcntile", "train"]
    alone = train(*scene, "-o", one, settings=plain)
    both = train(*scene, "-o", two, settings=plain, start=start)
    assert both.returncode == 0, both.stderr
    assert "Warning" not in both.stderr
    expected, found = json.loads(alone.stdout), json.loads(both.stdout)  # one of them talks
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert found["val"]["miou"] == pytest.approx(expected["val"]["miou"], rel=1e-4)
    a, b = load_file(one), load_file(two)
    for name in a:
        torch.testing.assert_close(b[name], a[name], rtol=1e-6, atol=1e-7)
    for mine, theirs in zip(
        losses(tmp_path / "one.run"), losses(tmp_path / "two.run"), strict=True
    ):
        assert float(theirs) == pytest.approx(float(mine), rel=1e-6)


@pytest.mark.slow
def test_a_batch_that_processes_cannot_share_is_refused(scene, tmp_path):
    before = sorted(tmp_path.iterdir())
    start = [*TWO, "-m", "fcntile", "train"]
    run = train(*scene, "-o", tmp_path / "m.safetensors", "--batch-size", 3, start=start)
    assert run.returncode != 0
    assert "Error: batch size 3 cannot be shared by 2 processes: use a multiple\n" in run.stderr
    assert "fcntile/train.py" not in run.stderr  # no traceback but torchrun's own
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_two_processes_stop_and_go_on(scene, tmp_path):
    start = [*TWO, "-m", "fcntile", "train"]
    steps = ["--steps", 60, "--val-every", 5]
    assert train(*scene, "-o", tmp_path / "whole.safetensors", *steps, start=start).returncode == 0
    output, folder = tmp_path / "parts.safetensors", tmp_path / "parts.run"
    args = [*scene, "-o", output, *steps, "--resume"]
    command = [*start, *SMALL, *map(str, args)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        while not (folder / "samples" / "step_000010.png").exists():
            time.sleep(0.01)
        run.send_signal(signal.SIGTERM)
        said = run.communicate(timeout=120)[1]
    done = read_state(folder / "last.checkpoint.safetensors")["done"]
    assert 10 <= done < 60
    assert f"stopped by SIGTERM after step {done} of 60" in said
    assert train(*args, start=start).returncode == 0
    assert losses(folder) == losses(tmp_path / "whole.run")
    assert_same_tensors(tmp_path / "whole.safetensors", output)


# --- what cannot be ---------------------------------------------------------------------------


def refusal(*args):
    """Run the command in this process; return its exit code and last line."""
    before = signal.getsignal(signal.SIGTERM)
    result = CliRunner().invoke(main, ["train", *map(str, args)])
    signal.signal(signal.SIGTERM, before)
    assert result.stdout == ""
    assert isinstance(result.exception, SystemExit)
    return result.exit_code, result.stderr.strip().splitlines()[-1]


def test_a_mistake_is_a_sentence_and_an_exit_code(scene, tmp_path):
    image, labels = scene
    (tmp_path / "file").write_text("precious")
    before = sorted(tmp_path.iterdir())
    output = ["-o", tmp_path / "m.safetensors"]
    ignored = ["--ignore", 0, "--ignore", 1, "--ignore", 2]
    assert_refused(train(tmp_path / "missing.tif", labels, *output), 3, "cannot open")
    for expected, words, args in (
        (2, "are 2 numbers for 3 classes", [image, labels, *output, "--class-weights", "1,2"]),
        (2, "multiple of the net's stride, 32", [image, labels, *output, "--window", 65]),
        (3, "labelled by", [image, labels, *output, *ignored]),
        (4, "no network is called", [image, labels, *output, "--arch", "unet"]),
        (4, "no model file nothing", [image, labels, *output, "--init", "nothing"]),
        (6, "does not exist", [image, labels, "-o", tmp_path / "no" / "m.safetensors"]),
        (6, "run folder", [image, labels, *output, "--run", tmp_path / "file" / "run"]),
    ):
        exit_code, error = refusal(*args)
        assert (exit_code, error[:7]) == (expected, "Error: "), error
        assert words in error
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--loss", "mse"], "is not a sum of ce, dice, focal"),
        (["--class-weights", "abc"], "'abc' are neither none, auto nor a number"),
        (["--class-weights", "1,-1,2"], "'1,-1,2' are neither none, auto nor a number"),
        (["--arch-option", "width"], "is not NAME=VALUE"),
        (["--optimizer", "rmsprop"], "is not one of 'adamw', 'sgd'"),
        (["--lr", "0"], "--lr"),
        (["--lr", "nan"], "--lr nan is not 0 or more"),
        (["--ema", "1"], "--ema 1.0 is not from 0 to 0.99999"),
        (["--steps", "0"], "--steps"),
        (["--batch-size", "99999"], "--batch-size 99999 is not from 1 to 65536"),
        (["--seed", str(2**32)], "--seed 4294967296 is not from 0"),
        (["--device", "toaster"], "no device is called 'toaster'"),
        (["--recipe", "fcn-light"], "--recipe"),
        (["--bogus"], "No such option"),
    ],
)
def test_a_bad_option_is_a_usage_error(scene, tmp_path, args, words):
    before = sorted(tmp_path.iterdir())
    exit_code, error = refusal(*scene, "-o", tmp_path / "m.safetensors", *args)
    assert exit_code == 2
    assert error.startswith("Error: ")
    assert words in error
    assert sorted(tmp_path.iterdir()) == before


def test_too_few_arguments_are_a_usage_error(scene, tmp_path):
    assert refusal(*scene) == (2, "Error: Missing option '-o' / '--output'.")
    exit_code, error = refusal(scene[0], "-o", tmp_path / "m.safetensors")
    assert (exit_code, "Missing argument" in error) == (2, True)
