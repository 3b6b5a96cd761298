"""Real processes, really killed: what they write is what an undisturbed one writes."""

import random
import resource
import signal
import time

import pytest

from experiments import hosts
from tests.experiments.test_checkpoints import flip, largest
from tests.experiments.training import Training

# One worker runs all tests of real processes, one after the other.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("processes")]

STEPS = 240


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def alone(folder):
    """What one process writes that nothing happens to."""
    training = Training(folder / "alone", f"--steps={STEPS}")
    training.finish()
    return training.outcome()


class Kills:
    """Seeded moments of a run, at which it is killed, and what was seen then."""

    def __init__(self, training, steps, seed):
        self.training, self.last, self.seen = training, steps, []
        self.random = random.Random(seed)

    def at(self, moment, *victims):
        """Starts the run and kills it, or one of its processes, at the moment."""
        training = self.training
        training.start()
        self.before = training.rows(), training.halves()
        came = getattr(self, moment)()
        training.send(signal.SIGKILL, *victims)
        found = training.ends(60)
        killed = victims or range(training.count)
        if moment != "ended":
            assert came, (moment, found)
            assert all(found[i][0] == -signal.SIGKILL for i in killed), (moment, found)
        self.seen.append((moment, bool(training.halves())))
        return found

    def compiles(self):
        """It has said so; then somewhere in compilations and first steps."""
        line = self.training.running[0].stdout.readline()
        while "compiles" not in line and "goes on" not in line:
            assert line, self.training.ends(60)
            line = self.training.running[0].stdout.readline()
        time.sleep(self.random.uniform(0, 0.6))
        return True

    def steps(self):
        """Some rows later."""
        wanted = self.before[0] + self.random.randint(1, 6)
        came = self.training.until(lambda: self.training.rows() >= wanted)
        time.sleep(self.random.uniform(0, 0.01))
        return came

    def saves(self):
        """Between the first and the last file of a checkpoint."""
        came, before = True, self.before[1]
        for _ in range(self.random.randint(1, 3)):
            came = came and self.training.until(
                lambda before=before: self.training.halves() - before
            )
            before = before | self.training.halves()
        time.sleep(self.random.uniform(0, 0.02))
        return came

    def last_row(self):
        text, path = f'{{"step": {self.last},', self.training.home / "metrics.jsonl"
        return self.training.until(lambda: path.exists() and text in path.read_text())

    def last_save(self):
        half = f"{self.last}."
        return self.training.until(
            lambda: any(name.startswith(half) for name in self.training.halves())
        )

    def ended(self):
        """All is written; this one may come too late."""
        return self.training.until((self.training.home / "results.json").exists)


def test_twenty_kills_of_one_process(folder, alone):
    training = Training(folder / "one", f"--steps={STEPS}")
    kills = Kills(training, STEPS, seed=0)
    moments = ["compiles"] * 4 + ["steps"] * 5 + ["saves"] * 8
    kills.random.shuffle(moments)
    for moment in [*moments, "last_row", "last_save", "ended"]:
        kills.at(moment)
    assert len(kills.seen) == 20
    assert sum(half for moment, half in kills.seen if "save" in moment) >= 4
    training.finish()
    assert training.outcome() == alone


def test_twenty_kills_of_two_processes(folder):
    """Of both at once; or of one, and the other must end by itself."""
    undisturbed = Training(folder / "two alone", f"--steps={STEPS}", count=2)
    undisturbed.finish()
    training = Training(folder / "two", f"--steps={STEPS}", count=2)
    kills = Kills(training, STEPS, seed=1)
    moments = [("compiles",)] * 2 + [("steps",)] * 3 + [("saves",)] * 5
    moments += [("saves", 0), ("saves", 1), ("steps", 0), ("steps", 1)]
    moments += [("saves", 1), ("steps", 0), ("saves", 0)]
    kills.random.shuffle(moments)
    for moment, *victims in [*moments, ("last_row",), ("last_save",), ("ended",)]:
        found = kills.at(moment, *victims)
        for victim in victims:
            status, _, err = found[1 - victim]
            assert status in (hosts.PEER_DIED, -signal.SIGABRT), found
            assert "another process is gone" in err or "another task died" in err
    assert len(kills.seen) == 20
    assert sum(half for moment, half in kills.seen if "save" in moment) >= 4
    training.finish()
    assert training.outcome() == undisturbed.outcome()


def test_signals_and_a_broken_checkpoint(folder, alone):
    training = Training(folder / "stopped", f"--steps={STEPS}")
    again = "to continue: python -m experiments.train --data=text"

    training.start("--fresh")
    assert training.until(lambda: training.rows() >= 8)
    training.send(signal.SIGTERM)
    ((status, _, err),) = training.ends()
    assert (status, err.count("\n")) == (0, 1)
    assert err.startswith(f"stopped by SIGTERM; {again}")
    assert "--fresh" not in err
    assert not training.halves()
    first = training.saved()[-1]
    assert first >= 16

    training.start()
    assert training.until(lambda: training.rows() >= 20)
    training.send(signal.SIGINT)
    ((status, out, err),) = training.ends()
    assert (status, err[:18]) == (130, "stopped by SIGINT;")
    assert f"goes on from step {first}" in out
    *_, before, newest = training.saved()

    flip(largest(training.home / "checkpoints" / str(newest)))
    out = training.finish()
    said = [line for line in out.splitlines() if "broken" in line]
    assert len(said) == 1
    assert f"checkpoint {newest} is broken (" in said[0]
    assert f"back to checkpoint {before}" in said[0]
    assert training.outcome() == alone


def test_a_grace_that_is_too_short_and_a_second_signal(folder):
    training = Training(folder / "late", f"--steps={10**6}")
    training.start("--grace=0.001")
    assert training.until(lambda: training.saved())
    begun = time.monotonic()
    training.send(signal.SIGTERM)
    ((status, _, err),) = training.ends()
    assert status == 128 + signal.SIGTERM
    assert err == (
        "not saved within --grace 0.001 s of SIGTERM; the checkpoints before remain\n"
    )
    assert time.monotonic() - begun < 5
    assert training.saved()


def test_a_file_size_limit_in_the_middle_of_a_run(folder, alone):
    """From then on no file of the run can grow beyond 12 kB, as on a full disk."""
    training = Training(folder / "full", f"--steps={STEPS}")
    training.start()
    assert training.until(lambda: training.saved())
    limit = (12 * 1024, 12 * 1024)
    resource.prlimit(training.running[0].pid, resource.RLIMIT_FSIZE, limit)
    ((status, _, err),) = training.ends()
    assert status == 1
    whole = training.saved()[-1]
    assert err.startswith("stopped: no space left for checkpoint ")
    assert err.endswith(f"; checkpoint {whole} is whole\n")
    training.finish()
    assert training.outcome() == alone
