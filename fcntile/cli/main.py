"""The command group: verbosity, and errors as one line with an exit code."""

import atexit
import errno
import logging
import os
import signal
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from fcntile import __version__
from fcntile.cli.evaluate import evaluate
from fcntile.cli.import_ import import_
from fcntile.cli.info import info
from fcntile.cli.inspect import inspect
from fcntile.cli.leaving import Leaving
from fcntile.cli.models import models
from fcntile.cli.predict import predict
from fcntile.cli.train import train
from fcntile.errors import NOTE, FcntileError, OutOfMemoryError, OutputError, Stopped

FULL = (errno.ENOSPC, errno.EDQUOT)
INTERRUPTED = 128 + signal.SIGINT  # as shells have it


def failure(message: str, exit_code: int) -> click.ClickException:
    """Return what click shows as one line without traceback, and leaves with that exit code."""
    exception = click.ClickException(message)
    exception.exit_code = exit_code  # type: ignore[misc]
    return exception


class Group(click.Group):
    """A group whose commands fail in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; turn what fcntile raises on purpose into a message and an exit code."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except Stopped as error:
            from fcntile.raster.gdal import works_on

            stopped = failure(str(error), error.exit_code)
            if not works_on():
                raise stopped from error
            stopped.show()
            os._exit(stopped.exit_code)
        except FcntileError as error:
            raise failure(str(error), error.exit_code) from error
        except MemoryError as error:
            raise failure(f"out of memory: {error}", OutOfMemoryError.exit_code) from error
        except OSError as error:
            if error.errno not in FULL:  # at a closed pipe click ends without a word
                raise
            message = f"cannot write or print: {error.strerror}"
            raise failure(message, OutputError.exit_code) from error
        except KeyboardInterrupt as error:
            raise failure("interrupted, nothing was written", INTERRUPTED) from error


@click.group("fcntile", cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", count=True, help="Say more on stderr; twice for debugging.")
@click.option("-q", "--quiet", count=True, help="Say less on stderr: errors only.")
@click.version_option(__version__)
def main(verbose: int, quiet: int) -> None:
    """Segment rasters too large for memory with fully convolutional networks."""
    logging.addLevelName(NOTE, "NOTE")
    level = max(logging.DEBUG, NOTE - 10 * (verbose - quiet))
    logging.basicConfig(stream=sys.stderr, level=level, format="%(levelname)s: %(message)s")
    # rasters without a georeference are welcome; rasterio warns at each of them
    warnings.filterwarnings("ignore", "Dataset has no geotransform|The given matrix is equal")
    warnings.filterwarnings("ignore", "The dataset's nodata attribute is shadowing the alpha band")


main.add_command(train)
main.add_command(predict)
main.add_command(evaluate)
main.add_command(inspect)
main.add_command(import_)
main.add_command(models)
main.add_command(info)


def run() -> None:
    """Be the program `fcntile`: run a command, and end the process at once.

    Python would first take apart, object by object, what torch and Dask have made.
    """
    for name in "stdout", "stderr":  # closed by who started us: the next file would take its place
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    leaving = Leaving()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as SIGINT is in the background of a script
            signal.signal(number, leaving)
    try:
        main()
    except SystemExit as ended:
        atexit._run_exitfuncs()  # as multiprocessing ends its processes
        with suppress(OSError):  # of a command that failed
            sys.stdout.flush()
        if isinstance(ended.code, int):
            os._exit(ended.code)
        raise
