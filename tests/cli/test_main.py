import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rasterio.rio.main import main_group

import fcntile
from fcntile import __version__, errors
from fcntile.cli.main import Group, main


def test_help_is_light():
    code = """
import sys
from fcntile.cli.main import main
for args in (["--help"], *([command, "--help"] for command in main.commands)):
    try:
        main(args)
    except SystemExit as exit:
        assert exit.code == 0
assert not {"torch", "rasterio", "numpy", "skimage", "matplotlib"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_what_commands_import_is_never_looked_through_for_garbage():
    code = """
import gc, sys
from fcntile.cli.importing import quick
from fcntile.cli.main import main
main(["info", "fcn8s", "--json"], standalone_mode=False)
assert gc.isenabled()
torch = sys.modules["torch"]
assert not any(o is torch.nn.__dict__ for o in gc.get_objects())
assert gc.get_freeze_count() > 100_000
try:
    with quick():
        raise ImportError
except ImportError:
    assert gc.isenabled()
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_module_is_the_command():
    run = subprocess.run(
        [sys.executable, "-m", "fcntile", "--version"], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip().endswith(__version__)


def ended(*args, stdout=subprocess.PIPE, **environment):
    """Return how the program ends that has asked Python to say goodbye."""
    code = """
import atexit, os, sys
from fcntile.cli.main import run
class Left:
    def __del__(self):
        os.write(2, b"taken apart")
left = Left()
atexit.register(print, "bye", file=sys.stderr)
run()
"""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": ""} | environment,
        text=True,
    )


def test_the_program_ends_at_once(tmp_path):
    """With all that it has printed, its exit code, and what was to be done at the end."""
    run = ended("--version")
    assert (run.returncode, run.stderr) == (0, "bye\n")
    assert run.stdout.strip().endswith(__version__)
    assert json.loads(ended("info", "fcn8s", "--json").stdout)["name"] == "fcn8s"
    run = ended("info", tmp_path / "missing.safetensors")
    assert run.returncode == errors.ModelError.exit_code


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_cannot_be_printed_is_an_error(unbuffered):
    with Path("/dev/full").open("w") as full:
        run = ended("info", "fcn8s", "--json", stdout=full, PYTHONUNBUFFERED=unbuffered)
    assert run.returncode == errors.OutputError.exit_code
    assert run.stderr == "Error: cannot write or print: No space left on device\nbye\n"


def test_rio_knows_the_command():
    result = CliRunner().invoke(main_group, ["fcntile", "predict", "--help"])
    assert result.exit_code == 0, result.output
    assert "Write the mask of a raster" in result.output


def commands():
    return list(main.commands)


@pytest.mark.parametrize("name", commands())
def test_every_command_and_option_has_help(name):
    command = main.commands[name]
    assert command.help
    assert "Examples:" in command.help
    assert command.get_short_help_str()
    for parameter in command.params:
        assert isinstance(parameter, click.Argument) or parameter.help, parameter.name


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.FcntileError, 1),
        (errors.OptionError, 2),
        (errors.InputError, 3),
        (errors.ModelError, 4),
        (errors.OutOfMemoryError, 5),
        (errors.OutputError, 6),
        (MemoryError, 5),
        (KeyboardInterrupt, 130),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(error, code):
    @click.group(cls=Group)
    def group():
        pass

    @group.command()
    def fail():
        raise error("what was given, what was wanted, what to do")

    result = CliRunner().invoke(group, ["fail"])
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


def test_errors_are_also_what_python_calls_them():
    assert issubclass(errors.InputError, ValueError)
    assert issubclass(errors.OutputError, OSError)
    assert issubclass(errors.OutOfMemoryError, MemoryError)


def test_the_files_on_the_path_of_a_pixel_are_there():
    named = re.findall(r"[\w/]+\.py", fcntile.__doc__)
    assert len(named) > 10
    assert not [path for path in named if not (Path(fcntile.__file__).parent / path).exists()]
