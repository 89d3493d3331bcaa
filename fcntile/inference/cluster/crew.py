"""Who makes the parts of a run, if not its own process."""

import logging
from dataclasses import dataclass, replace

import torch

from fcntile.errors import NOTE, OptionError, check_range
from fcntile.inference.cluster.connection import connection, workers_of
from fcntile.inference.cluster.worker import survey
from fcntile.inference.devices import Plan, make_plan
from fcntile.inference.memory import default_bound, resident_bytes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Crew:
    """Who makes the parts.

    Args:
        workers: processes on this machine; None if a scheduler has workers.
        scheduler: its address; None for workers on this machine.
    """

    workers: int | None
    scheduler: str | None

    def make_plan(
        self, device: str, precision: str, batch_size: int | None, threads: int | None
    ) -> Plan:
        """Return how each worker runs a net, from wishes as `devices.make_plan` has them.

        Threads are those of this machine together; with a scheduler those of each worker.

        Raises:
            OptionError: if workers have no such device, or not all the same.
            InputError: if the scheduler cannot be reached.
        """
        if self.scheduler:
            return _plan_of_workers(self.scheduler, device, precision, batch_size, threads)
        assert self.workers
        plan = make_plan(device, precision, batch_size, threads)
        gpus = torch.cuda.device_count() if plan.device.type == "cuda" else self.workers
        if self.workers > gpus or ":" in device:
            raise OptionError(
                f"{self.workers} workers take a GPU each, and there are {gpus}: use fewer "
                "--workers, and --device cuda or auto"
            )
        return replace(plan, threads=max(1, plan.threads // self.workers))

    def memory(self, most: float | None) -> float | None:
        """Return the bytes that each worker may hold, if all may hold so many."""
        if not self.workers:
            return most
        own = resident_bytes()  # of this process, which puts the parts together
        return max(0.0, (most or default_bound()) - own) / self.workers


def choose_crew(workers: int | None, scheduler: str | None) -> Crew | None:
    """Return who makes the parts; None for this process.

    Raises:
        OptionError: if both are given, or Dask is not there.
    """
    if workers is None and scheduler is None:
        return None
    if scheduler is not None and not scheduler.strip():
        raise OptionError("the scheduler has no address: give one such as tcp://host:8786")
    if workers is not None and scheduler is not None:
        raise OptionError("a scheduler has its own workers: use --workers or --scheduler, not both")
    if workers is not None:
        check_range("--workers", workers, 1)
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise OptionError("clusters need Dask: pip install 'fcntile[cluster]'") from error
    return Crew(workers, scheduler)


def _plan_of_workers(
    address: str, device: str, precision: str, batch_size: int | None, threads: int | None
) -> Plan:
    """Return the plan for the workers that a scheduler has now."""
    with connection(address) as client:
        if not workers_of(client, set()):
            log.log(NOTE, "%s has no workers yet: waiting for one", address)
            client.wait_for_workers(1)
            workers_of(client, set())
        kinds = set(client.run(survey).values())
        least = min(client.nthreads().values())
    devices = {kind for kind, _ in kinds}
    if device == "auto" and len(devices) > 1:
        raise OptionError(
            f"the workers at {address} have different devices ({', '.join(sorted(devices))}), "
            "whose bits would differ: say --device cpu, or use workers of one kind"
        )
    kind = devices.pop() if device == "auto" else device
    if kind not in ("cpu", "mps", "cuda") or (kind != "cpu" and devices - {kind}):
        raise OptionError(f"not all workers at {address} have a device {kind}: use --device auto")
    if len(kinds) > 1:
        log.warning(
            "workers compute by different kernels (%s): the last bits of logits may differ",
            ", ".join(sorted({name for _, name in kinds})),
        )
    return make_plan(torch.device(kind), precision, batch_size, threads or least)
