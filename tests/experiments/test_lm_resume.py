"""Real processes, really killed: what they write is what an undisturbed one writes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.experiments import corpus

# One worker runs all tests of real processes, one after the other.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("processes")]

FLAGS = [*corpus.TINY, "--steps=120", "--arms=adamw,all,average", "--data=text"]


class Program:
    """`python -m experiments.lm` in a folder of its own."""

    def __init__(self, folder, *flags):
        self.command = [sys.executable, "-m", "experiments.lm", *FLAGS, *flags]
        self.folder = folder
        self.env = os.environ | {"PYTHONPATH": os.getcwd(), "PYTHONWARNINGS": "error"}

    def start(self):
        pipe = subprocess.PIPE
        where = {"cwd": self.folder, "env": self.env, "text": True}
        return subprocess.Popen(self.command, stdout=pipe, stderr=pipe, **where)

    def finish(self):
        process = self.start()
        out, err = process.communicate(timeout=600)
        assert (process.returncode, err) == (0, ""), out
        return out

    def stop(self, signum, arm, step):
        """Sends the signal once the arm has a checkpoint at or beyond the step."""
        folder = self.folder / "runs/lm" / arm / "checkpoints"
        process = self.start()
        while process.poll() is None and max(steps(folder), default=0) < step:
            time.sleep(0.002)
        process.send_signal(signum)
        out, err = process.communicate(timeout=600)
        return process.returncode, out, err


def steps(folder):
    names = [path.name for path in folder.glob("*")]
    return [int(name) for name in names if name.isdigit()]


def outcome(folder):
    """Every arm's rows and the results, without what was measured by the clock."""
    run = folder / "runs/lm"
    results = json.loads((run / "results.json").read_text())
    rows = {}
    for arm in results["arms"]:
        lines = (run / arm / "metrics.jsonl").read_text().splitlines()
        rows[arm] = [json.loads(line) for line in lines]
    for part in (*results["arms"].values(), *(r for rs in rows.values() for r in rs)):
        part.pop("timing", None)
    return rows, results


def test_a_demo_killed_in_every_way_ends_like_one_left_alone(tmp_path):
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    for folder in (alone, killed):
        corpus.write(folder / "text")
    said = Program(alone).finish()
    assert "average" in said

    program = Program(killed, "--fresh")
    code, out, err = program.stop(signal.SIGTERM, "adamw", 16)
    assert code == 0, out + err
    continued = " ".join(["python -m experiments.lm", *FLAGS])
    assert err == f"stopped by SIGTERM; to continue: {continued}\n"

    program = Program(killed)
    code, out, err = program.stop(signal.SIGKILL, "all", 24)
    assert code == -signal.SIGKILL, out + err
    assert "adamw  step" in out
    assert "goes on from step" in out
    saved = killed / "runs/lm/all/checkpoints"
    newest = max(steps(saved))
    files = (path for path in (saved / str(newest)).rglob("*") if path.is_file())
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[::-1])

    code, out, err = program.stop(signal.SIGINT, "all", newest + 16)
    assert code == 128 + signal.SIGINT, out + err
    assert err.startswith("stopped by SIGINT; to continue: ")
    assert f"checkpoint {newest} is broken (" in out
    assert f"all  step {newest - 8:>3}/120  goes on from step {newest - 8}" in out

    table = program.finish().partition("┏")[2]
    assert table
    assert outcome(killed) == outcome(alone)
    names = {path.name for path in (killed / "runs/lm").iterdir()}
    assert names == {path.name for path in (alone / "runs/lm").iterdir()}
    wanted = {"adamw", "all", "average", "costs.json", "results.json", "table.md"}
    assert names == wanted | {"curves.png", "domains.png"}

    # Done, it only prints again; what the average is of may be broken meanwhile.
    before = (killed / "runs/lm/all/metrics.jsonl").read_bytes()
    assert program.finish().partition("┏")[2] == table
    assert (killed / "runs/lm/all/metrics.jsonl").read_bytes() == before
    shutil.rmtree(killed / "runs/lm/average")
    shutil.rmtree(saved / "112" / "state")
    assert program.finish().partition("┏")[2] == table
    assert outcome(killed) == outcome(alone)

    program.command.append("--seed=1")
    refused = program.start()
    assert refused.communicate()[1].startswith(
        "error: run 'adamw' exists with a different"
    )
    assert refused.returncode == 2
