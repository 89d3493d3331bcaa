"""Where a net runs, and how."""

import logging
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from fcntile.errors import OptionError, OutOfMemoryError, check_choice, check_range
from fcntile.inference.choices import PRECISIONS

log = logging.getLogger(__name__)

COMPUTES_IN = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
GPU_BATCH = 8
MAX_THREADS, MAX_BATCH = 1024, 65536


LACKS_MEMORY = (  # torch's words; oneDNN's do not say what it lacks, nearly always it is memory
    "out of memory",
    "can't allocate memory",
    "STATUS_ALLOC_FAILED",
    "could not create a primitive",
    "could not create a memory object",
    "could not execute a primitive",
)


@dataclass(frozen=True)
class Plan:
    """How to run a net here.

    Args:
        device: where.
        precision: dtype the net computes in; logits are float32 anyway.
        batch_size: tiles per forward pass.
        threads: CPUs to use, for the net or, with a GPU, beside it.
        keeps_memory: whether large maps are freed for the next tile; if not, for the system, which
            is slower, but leaves no holes between maps of many sizes.
    """

    device: torch.device
    precision: torch.dtype
    batch_size: int
    threads: int
    keeps_memory: bool = True

    @property
    def workers(self) -> int:
        """Forward passes at a time."""
        return self.threads if self.device.type == "cpu" else 1


def make_plan(
    device: str | torch.device = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    threads: int | None = None,
) -> Plan:
    """Return how to run a net with these wishes.

    What is left open follows a rule, not a timed trial: kernels differ by batch size, so a trial
    would let noise decide about the last bit of a logit. On CPUs one tile per worker and one worker
    per thread; on GPUs a fixed batch. Half precision changes labels, so it is never chosen unasked.

    Args:
        device: "auto", "cpu", "cuda", "cuda:N" or "mps"; or one that is not here, but where the
            plan is for.
        precision: "auto" (fp32), "fp32", "bf16" or "fp16".
        batch_size: tiles per forward pass.
        threads: CPUs to use, by default all that this process may use.

    Raises:
        OptionError: if there is no such device here, or a number is none that can be used.
    """
    where = choose_device(device) if isinstance(device, str) else device
    check_choice("--precision", precision, PRECISIONS)
    if threads is not None:
        check_range("--threads", threads, 1, MAX_THREADS)
    if batch_size is not None:
        check_range("--batch-size", batch_size, 1, MAX_BATCH)
    on_cpu = where.type == "cpu"
    return Plan(
        device=where,
        precision=COMPUTES_IN["fp32" if precision == "auto" else precision],
        batch_size=batch_size or (1 if on_cpu else GPU_BATCH),
        threads=threads or available_cpus(),
    )


def choose_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the first GPU, or the CPU.

    Raises:
        OptionError: if there is no such device here.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next((kind for kind, here in available.items() if here), "cpu"))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(f"no device is called {name!r}: use cpu, cuda, cuda:N or mps") from error
    if not available.get(device.type, device.type == "cpu"):
        raise OptionError(f"there is no {device.type} device here: use cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise OptionError(f"there is no {name} here: there are {torch.cuda.device_count()} GPUs")
    return device


def exact_fp32(device: torch.device) -> None:
    """Keep GPUs from computing float32 convolutions in TF32, which has 10 bits of 23."""
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False


@contextmanager
def out_of_memory(device: torch.device, what: str, advice: str) -> Iterator[None]:
    """Turn what torch raises for lack of memory into an error that says what to do.

    Args:
        device: that lacks it.
        what: there is too little memory for, such as "8 tile(s) at a time".
        advice: what to do.

    Raises:
        OutOfMemoryError: if there is too little.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        lacks = any(words in str(error) for words in LACKS_MEMORY)
        if isinstance(error, RuntimeError) and not lacks:
            raise
        log.info("torch says: %s", error)
        raise OutOfMemoryError(f"{device} has too little memory for {what}: {advice}") from error


@contextmanager
def threads_of_torch(threads: int) -> Iterator[None]:
    """Let torch compute with so many threads where this one waits for it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def available_cpus() -> int:
    """Return how many CPUs this process may use: its affinity and its container's quota."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cpus, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max"
        return cpus


def peak_rss() -> int:
    """Return the largest resident memory of this process so far, in bytes.

    Of this program alone: what Linux says of resources used goes on from the process that started
    it.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
