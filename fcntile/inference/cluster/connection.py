"""The connection to a Dask scheduler, and who works for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fcntile.errors import InputError, OptionError

if TYPE_CHECKING:
    from distributed import Client

CONNECTING = 10  # seconds that a scheduler has to answer
PACKAGES = ("fcntile", "torch")  # whose versions decide the bits


@contextmanager
def connection(address: str) -> Iterator["Client"]:
    """Connect to a scheduler.

    Raises:
        InputError: if it does not answer.
    """
    from distributed import Client

    class Connection(Client):  # type: ignore[misc]
        """A client that closes if it finds no scheduler.

        Dask closes it when it is collected as garbage, which waits for ever if it comes while
        the same thread starts another client.
        """

        def __init__(self) -> None:
            try:
                super().__init__(address, timeout=CONNECTING, set_as_default=False)
            except BaseException:
                self.close()
                raise

    try:
        client = Connection()
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address}: {error or 'no reason is known'}"
        ) from error
    with client:
        yield client


def lost(client: "Client", why: object) -> InputError:
    """Return what a run ends with that loses its scheduler."""
    return InputError(
        f"lost the scheduler at {client.scheduler.address} ({why}): see that it runs, and go on"
    )


def workers_of(client: "Client", known: set[str] | None) -> list[str]:
    """Return the addresses of the workers that are there.

    Args:
        client: connected.
        known: those that are as they should be; new ones are looked at, and added. None if all are,
            as those that this process has started.

    Raises:
        InputError: if the scheduler is lost.
        OptionError: if a new worker has other versions of what decides the bits.
    """
    try:
        workers = sorted(client.nthreads())
        if known is not None and (new := set(workers) - known):
            _check_versions(client, new)
            known |= new
    except OSError as error:
        raise lost(client, error) from error
    return workers


def _check_versions(client: "Client", workers: set[str]) -> None:
    versions = client.get_versions(packages=PACKAGES)
    here = versions["client"]["packages"]
    for worker in workers & set(versions["workers"]):
        there = versions["workers"][worker]["packages"]
        for name in PACKAGES:
            if there.get(name) != here.get(name):
                raise OptionError(
                    f"the worker at {worker} has {name} {there.get(name)}, not {here.get(name)} "
                    "as here: install the same, or bits would differ"
                )
