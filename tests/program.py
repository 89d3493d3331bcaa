"""The program `fcntile` as a process of its own, and how it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

FCNTILE = [sys.executable, "-m", "fcntile"]
HIDE = 'import sys; sys.modules["matplotlib"] = sys.modules["matplotlib.figure"] = None'
WITHOUT_MATPLOTLIB = [sys.executable, "-c", f"{HIDE}; from fcntile.cli.main import main; main()"]
WITH_NETS = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import nets  # registers its nets
from fcntile.cli.main import main
main()
"""


def fcntile(*args, start=FCNTILE, env=None, **more):
    """Run a command; return the finished process.

    Args:
        args: words of the command line.
        start: words before them.
        env: variables beside those of this process, of which FCNTILE_MODEL is left out.
        more: for `subprocess.run`.
    """
    known = {key: value for key, value in os.environ.items() if key != "FCNTILE_MODEL"}
    command = [*start, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env=known | (env or {}), **more)


def predict_with_nets(*args):
    """Run a prediction that knows the nets of nets.py; return what it says."""
    command = [sys.executable, "-c", WITH_NETS, "predict", *map(str, args), "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def assert_refused(run, exit_code, *words):
    """Check that a run failed in one sentence."""
    assert run.returncode == exit_code, run.stderr
    assert run.stdout == ""
    assert "Traceback" not in run.stderr
    error = run.stderr.strip().splitlines()[-1]
    assert error.startswith("Error: ")
    for word in words:
        assert word in error
