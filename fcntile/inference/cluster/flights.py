"""Parts on their way: tasks that workers were asked for, until they are here."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from rasterio.windows import Window

from fcntile.errors import OutOfMemoryError
from fcntile.inference.cluster.connection import lost
from fcntile.inference.cluster.stretches import Place, Stretch
from fcntile.inference.cluster.walk import Made
from fcntile.inference.cluster.worker import make_junction, make_part, take_half

if TYPE_CHECKING:
    from distributed import Client, Future

LANDING = 10.0  # seconds that a finished part may take from its worker to here
TRIES = 4  # times that all workers may be lost with the same part
DIED = "workers died over the same part again and again (killed for lack of memory?)"


@dataclass(frozen=True)
class Flight:
    """One task.

    Args:
        window: of the part that it makes.
        worker: who is asked for it; empty if it does not matter who.
        ask: submits it, to the workers that have what it needs if that is true.
        tries: how often it was submitted.
    """

    window: Window
    worker: str
    ask: Callable[[bool], "Future"]
    tries: int = 1


class Flights:
    """All tasks of a run.

    Args:
        client: connected.
        order: what to make, pickled.
    """

    def __init__(self, client: "Client", order: bytes) -> None:
        self._client, self._order = client, order
        self._flying: dict[Future, Flight] = {}  # a worker's first is in the making
        self._landed: SimpleQueue[Future] = SimpleQueue()

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return bool(self._flying)

    def busy(self) -> list[str]:
        """Return the workers of all parts, one that has two of them twice."""
        return [flight.worker for flight in self._flying.values()]

    def in_the_making(self) -> list[Window]:
        """Return the part that each worker is at work on."""
        firsts: dict[str, Window] = {}
        for flight in self._flying.values():
            firsts.setdefault(flight.worker, flight.window)
        return [window for worker, window in firsts.items() if worker]

    def are_landed(self, windows: Sequence[Window]) -> bool:
        """Tell whether none of some parts is on its way."""
        return all(flight.window not in windows for flight in self._flying.values())

    def ask_for_part(self, worker: str, route: Stretch, *, shares: bool) -> None:
        """Ask a worker for the first part of a route."""

        def ask(is_known: bool) -> "Future":
            return self._submit(make_part, route, shares, worker=worker if is_known else "")

        self._take_off(Flight(route[0], worker, ask))

    def ask_for_junction(self, window: Window, above: Place, below: Sequence[Place]) -> None:
        """Ask for the part of a junction, of the halves that are with the workers around it."""

        def half(place: Place, side: str, is_known: bool) -> "Future":
            part, worker = place
            return self._submit(take_half, part, side, worker=worker if is_known else "")

        def ask(is_known: bool) -> "Future":
            upper = half(above, "below", is_known)
            lower = [half(place, "above", is_known) for place in below]
            return self._submit(make_junction, window, upper, lower)

        self._take_off(Flight(window, "", ask))

    def _submit(self, function: Callable[..., object], *args: object, worker: str = "") -> "Future":
        options: dict[str, Any] = {"pure": False, "retries": 1}
        options["priority"] = int(function is not make_part)  # halves are in nobody's way for long
        if worker:
            options |= {"workers": [worker], "allow_other_workers": True}  # if this one is lost
        return self._client.submit(function, self._order, *args, **options)

    def _take_off(self, flight: Flight) -> None:
        future = flight.ask(flight.tries == 1)
        self._flying[future] = flight
        future.add_done_callback(self._landed.put)

    def take_off_again(self) -> None:
        """Ask for everything once more, whoever is there: Dask keeps it for workers that are gone.

        Raises:
            OutOfMemoryError: if all workers were lost with the same part too often.
        """
        for future, flight in list(self._flying.items()):
            if future.done():
                continue
            del self._flying[future]
            future.cancel()
            if flight.tries == TRIES:
                raise OutOfMemoryError(DIED)
            self._take_off(replace(flight, worker="", tries=flight.tries + 1))

    def next(self, timeout: float) -> tuple[Window, Made] | None:
        """Return a part that has landed; None if there is none in so many seconds.

        Raises:
            FcntileError: of the kinds that making parts raises, in whatever worker.
            InputError: if the scheduler is lost.
        """
        try:
            future = self._landed.get(timeout=timeout)
        except Empty:
            return None
        if future not in self._flying:  # it was asked for again
            return None
        made = self._result(future)
        if made is None:
            future.add_done_callback(self._landed.put)
            return None
        flight = self._flying.pop(future)
        future.release()
        return flight.window, made

    def _result(self, future: "Future") -> Made | None:
        """Return the part that a task made, or raise what ended it; None if its worker is lost."""
        from distributed import KilledWorker

        try:
            made: Made = future.result(timeout=LANDING)
        except (TimeoutError, asyncio.TimeoutError):
            return None
        except KilledWorker as error:
            raise OutOfMemoryError(f"{DIED}: {error}") from error
        except (CancelledError, asyncio.CancelledError) as error:
            raise lost(self._client, "it closed the connection") from error
        return made
