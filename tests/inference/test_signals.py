"""Signals while a run goes on."""

import os
import signal
import threading

import pytest

from fcntile.inference.signals import caught_signals

BOTH = signal.SIGINT, signal.SIGTERM


def handlers():
    return [signal.getsignal(number) for number in BOTH]


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_is_noted_and_a_second_one_obeyed(number):
    obeyed = []
    before = signal.signal(number, lambda signum, frame: obeyed.append(signum))
    try:
        with caught_signals() as caught:
            assert caught == []
            os.kill(os.getpid(), number)
            assert (caught, obeyed) == ([number], [])
            os.kill(os.getpid(), number)
            assert (caught, obeyed) == ([number], [number])
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_that_is_ignored_stays_so(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with caught_signals() as caught:
            os.kill(os.getpid(), number)
            assert caught == []
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_afterwards_signals_do_what_they_did_before():
    before = handlers()
    with caught_signals():
        assert handlers() != before
    assert handlers() == before
    with pytest.raises(KeyError), caught_signals():
        raise KeyError
    assert handlers() == before


def test_in_another_thread_none_is_caught():
    before, seen = handlers(), []

    def work():
        with caught_signals() as caught:
            seen.append((caught, handlers()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [([], before)]
