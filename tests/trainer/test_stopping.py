"""Signals that end a run well."""

import os
import signal

import pytest

from sparsedict.trainer.stopping import SIGNALS, interrupt_flag

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals to itself")


@pytest.fixture(autouse=True)
def as_before():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_first_one_is_noted_the_second_acts(name):
    number, acted = getattr(signal, name), []
    signal.signal(number, lambda *_: acted.append(number))
    with interrupt_flag() as flag:
        assert not flag.is_set() and flag.number is None
        os.kill(os.getpid(), number)
        assert flag.is_set() and flag.number == number and not acted
        os.kill(os.getpid(), number)
        assert acted == [number]
    os.kill(os.getpid(), number)
    assert acted == [number, number]


def test_a_terminal_that_goes_away_sends_more_than_one():
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    signal.signal(signal.SIGTERM, lambda *_: pytest.fail("acted at once"))
    with interrupt_flag() as flag:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.number == signal.SIGHUP


def test_under_nohup_a_terminal_that_goes_away_is_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interrupt_flag() as flag:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not flag.is_set()
