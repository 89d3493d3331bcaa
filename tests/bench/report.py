"""Markdown on stdout and at the end of a file, line by line as it comes."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    *("torch", "rasterio", "numpy", "monai", "pytorch-toolbelt"),
    *("geodeep", "onnxruntime"),
)


class Report:
    """Where tables go.

    Args:
        path: a file to append to, or None.
    """

    def __init__(self, path=None):
        self._path = path

    def line(self, text=""):
        print(text, flush=True)
        if self._path:
            with Path(self._path).open("a") as file:
                print(text, file=file)

    def row(self, *cells):
        self.line("| " + " | ".join(str(cell) for cell in cells) + " |")

    def table(self, title, *cells):
        """Begin a table: its title and what its columns are called."""
        self.line(f"\n### {title}\n")
        self.row(*cells)
        self.row(*["---"] + ["--:"] * (len(cells) - 1))


def machine():
    """Return in one line what the figures were taken with."""
    cpu = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [s.split(": ")[1] for s in info.read_text().splitlines() if "model name" in s]
        cpu = names[0] if names else cpu
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{cpu}, {len(os.sched_getaffinity(0))} CPUs, {memory:.0f} GiB, {platform.system()}"


def software():
    """Return the commit and the versions of what is compared."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return f"commit {commit}, " + ", ".join(found)
