"""Signals end a run between two steps, within the grace, and never twice."""

import os
import signal
import textwrap
import time

import pytest

from experiments import stop
from experiments.stop import Stop, Stopped
from tests.experiments import processes


@pytest.fixture
def held():
    """A Stop whose handlers are put away again."""
    before = {signum: signal.getsignal(signum) for signum in stop.SIGNALS}
    made = Stop()
    for signum in stop.SIGNALS:
        signal.signal(signum, made._handle)
    yield made
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)]
)
def test_a_signal_waits_for_the_check(held, signum, status):
    steps = []

    def loop():
        with held.later():
            for step in range(5):
                held.check()
                if step == 2:
                    os.kill(os.getpid(), signum)
                steps.append(step)

    with pytest.raises(Stopped) as stopped:
        loop()
    assert steps == [0, 1, 2]
    assert (stopped.value.status, str(stopped.value)) == (status, signum.name)


def test_outside_it_is_at_once(held):
    def loop():
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("came after the signal")

    with pytest.raises(Stopped):
        loop()


def test_the_end_of_later_is_a_check(held):
    with pytest.raises(Stopped), held.later():
        os.kill(os.getpid(), signal.SIGINT)


def test_several_processes_stop_at_the_step_that_they_agree_on(held):
    """A ballot knows the votes of the step before; the largest signal wins."""
    held._several = True
    votes = iter([0, 0, 0, int(signal.SIGTERM)])
    seen = []

    def vote(value):
        seen.append(int(value))
        return next(votes)

    def loop():
        with held.later():
            for step in range(9):
                if step == 1:
                    os.kill(os.getpid(), signal.SIGINT)
                held.check()

    held._vote = vote
    with pytest.raises(Stopped) as stopped:
        loop()
    assert seen == [0, 2, 2, 2]
    assert stopped.value.signum == signal.SIGTERM


def child(body, *signals, wait=0.0, grace=30):
    """(status, said, errors, seconds) of a program that gets signals after "ready"."""
    program = f"""
        import signal, sys, time
        from experiments.stop import Stop, Stopped
        stop = Stop()
        stop.grace = {grace}
        stop.install()
        try:
            with stop.later():
                print("ready", flush=True)
                {body}
        except Stopped as stopped:
            print("saved", flush=True)
            sys.exit(stopped.status)
    """
    process = processes.start("-c", textwrap.dedent(program))
    assert process.stdout.readline() == "ready\n"
    begun = time.monotonic()
    for signum in signals:
        process.send_signal(signum)
        time.sleep(wait)
    ((status, out, err),) = processes.ends([process], 30)
    return status, out, err, time.monotonic() - begun


STEPS = "[(time.sleep(0.01), stop.check()) for _ in range(1000)]"
# The main thread is in C, as in a compilation: no handler written in Python is run.
DEEP = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)]
)
def test_one_signal_saves(signum, status):
    found = child(STEPS, signum)
    assert found[:3] == (status, "saved\n", "")


def test_the_same_signal_twice_at_once_is_one():
    assert child(STEPS, signal.SIGTERM, signal.SIGTERM)[:2] == (0, "saved\n")


def test_the_grace_ends_even_what_is_deep_in_c():
    status, out, err, seconds = child(DEEP, signal.SIGTERM, grace=0.5)
    assert (status, out) == (143, "")
    assert err.startswith("not saved within --grace 0.5 s of SIGTERM")
    assert 0.5 <= seconds < 3


def test_a_second_signal_ends_at_once():
    status, out, err, seconds = child(
        DEEP, signal.SIGTERM, signal.SIGINT, wait=stop.ONCE + 0.2
    )
    assert (status, out, err) == (130, "", "")
    assert seconds < 5
