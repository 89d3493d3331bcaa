import threading
import time

import pytest

from fcntile.inference.stages import Clock, ahead


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
