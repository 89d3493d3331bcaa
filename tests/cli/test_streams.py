"""What the program does with streams that are closed, and other oddities of a command line."""

import shlex
import subprocess

import pytest
from program import FCNTILE, assert_refused, fcntile


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_may_be_closed(orthophoto, tmp_path, closed):
    out = tmp_path / "mask.tif"
    command = f"{shlex.join(FCNTILE)} predict {orthophoto} -o {out} --json {closed}"
    run = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert out.exists()


@pytest.mark.parametrize("bounds", ["-inf -inf inf inf", "0 0 inf 1"])
def test_bounds_are_finite(orthophoto, tmp_path, bounds):
    run = fcntile("predict", orthophoto, "-o", tmp_path / "m.tif", "--bounds", bounds)
    assert_refused(run, 2, "are not left, bottom, right, top")
