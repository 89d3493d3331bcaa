"""How a command refuses."""


def assert_refused(run, exit_code, *words):
    """Check that a run failed in one sentence."""
    assert run.returncode == exit_code, run.stderr
    assert run.stdout == ""
    assert "Traceback" not in run.stderr
    error = run.stderr.strip().splitlines()[-1]
    assert error.startswith("Error: ")
    for word in words:
        assert word in error
