"""Run programs as whole processes, in turn, and compare what they took.

A child's peak memory counts from its parent's, so a benchmark must stay small itself: it imports
neither numpy nor torch, and lets scripts of their own make rasters and models.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

# as an installed package: Python keeps its compiled modules
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
PROGRESS = "wall {wall:7.2f} s  CPU {cpu:7.2f} s  {mb:6.0f} MB"


def run(command):
    """Return what a process took: wall and CPU seconds, peak memory in MB, and what it printed.

    "own" are the seconds that it counted itself, without the start of Python and its imports.
    """
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=ENVIRONMENT,
            text=True,
        )
        try:
            printed = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            raise
        process.returncode = status  # so that nobody waits for it again
        wall = time.perf_counter() - start
        if status:
            complaints.seek(0)
            raise SystemExit(f"failed: {' '.join(map(str, command))}\n{complaints.read()[-2000:]}")
    cpu, mb = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3  # KB on Linux
    said = json.loads(printed or "{}")
    return {"wall": wall, "own": said.get("seconds", wall), "cpu": cpu, "mb": mb, "json": said}


class Rounds:
    """Programs that take turns: A B C, C B A, A B C, ...

    What one leaves behind (caches, memory to be cleared) falls to another in the next round.

    Args:
        programs: command of each, by name.
    """

    def __init__(self, programs):
        self.programs = programs
        self.taken = []  # of every whole round, what each program took, by name

    def run(self, count):
        """Run `count` rounds; what was taken stays, however it ends."""
        order = list(self.programs.items())
        for number in range(1, count + 1):
            took = {}
            for name, command in order:
                took[name] = run(command)
                print(f"{number}/{count}", PROGRESS.format(**took[name]), name, file=sys.stderr)
            self.taken.append(took)
            order.reverse()

    def median(self, name, key="wall"):
        return statistics.median(took[name][key] for took in self.taken)

    def ratios(self, a, b, key="wall"):
        """Return a / b of each round, sorted: what slows a whole round cancels out."""
        return sorted(took[a][key] / took[b][key] for took in self.taken)

    def ratio(self, a, b, key="wall"):
        return statistics.median(self.ratios(a, b, key))

    def said(self, name):
        """Return what a program printed in the last round."""
        return self.taken[-1][name]["json"]


def end_like_interrupt(*_):
    raise KeyboardInterrupt


signal.signal(signal.SIGTERM, end_like_interrupt)
