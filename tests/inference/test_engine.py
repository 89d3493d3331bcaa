import threading
import time

import pytest
import torch

from fcntile.errors import OptionError, OutOfMemoryError
from fcntile.inference.clock import Clock
from fcntile.inference.engine import ahead, available_cpus, make_plan, out_of_memory


def run_ahead(items):
    return ahead(items, Clock(), empty="empty", full="full")


def test_ahead_gives_the_items_in_order():
    assert list(run_ahead(i for i in range(100))) == list(range(100))


def test_an_error_surfaces_as_itself():
    def items():
        yield 1
        raise KeyError("lost")

    ran = run_ahead(items())
    assert next(ran) == 1
    with pytest.raises(KeyError, match="lost"):
        next(ran)


def test_a_consumer_that_leaves_stops_the_thread_and_closes_the_items():
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    before = threading.active_count()
    ran = run_ahead(items())
    next(ran)
    ran.close()
    assert closed.wait(5)
    assert threading.active_count() == before


def test_ahead_is_bounded():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i

    ran = run_ahead(items())
    next(ran)
    time.sleep(0.1)
    assert len(made) <= 3  # one taken, one in the queue, one in the making
    ran.close()


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(OptionError, match="no device is called 'gpu'"):
        make_plan(device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(OptionError, match="there is no cuda device here"):
            make_plan(device="cuda")


def test_plans_on_the_cpu_follow_the_threads():
    plan = make_plan(device="cpu", threads=3)
    assert (plan.workers, plan.batch_size, plan.precision) == (3, 1, torch.float32)
    assert make_plan(device="cpu").workers == available_cpus()


def test_lack_of_memory_says_what_would_help():
    cpu = torch.device("cpu")
    with pytest.raises(OutOfMemoryError, match="smaller --batch-size"), out_of_memory(cpu, 4):
        torch.empty(1 << 50)
    with pytest.raises(RuntimeError, match="shape"), out_of_memory(cpu, 4):
        torch.ones(3).reshape(2)
