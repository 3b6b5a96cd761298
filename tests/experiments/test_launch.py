"""The scripts of experiments/launch, with stand-ins for what they call; the page."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

from tests.experiments import corpus, processes
from tests.experiments.training import TINY

pytestmark = pytest.mark.xdist_group("processes")

LAUNCH = processes.ROOT / "experiments" / "launch"
PAGE = (LAUNCH / "README.md").read_text()
SCRIPTS = ["slurm.sbatch", "tpu_pod.sh", "worker.sh", "xpk.sh"]

RECORD = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
"""

# Two local processes as tasks 0 and 1 of a step of two.
SRUN = """
import subprocess
words = sys.argv[1:]
while words[0].startswith("--"):
    words = words[1:]
step = {"SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
ranks = [step | {"SLURM_PROCID": i, "SLURM_LOCALID": i} for i in "01"]
both = [subprocess.Popen(words, env=os.environ | rank) for rank in ranks]
sys.exit(max(process.wait(120) for process in both))
"""


class Stubs:
    """A folder on PATH whose programs write down how they were called."""

    def __init__(self, folder):
        self.calls, self.bin = folder / "calls.jsonl", folder / "bin"
        self.bin.mkdir()

    def add(self, name, more=""):
        (self.bin / name).write_text(RECORD + more)
        (self.bin / name).chmod(0o755)

    def run(self, *words, timeout=120, **env):
        path = f"{self.bin}:{os.environ['PATH']}"
        env = processes.environment(PATH=path, CALLS=str(self.calls), **env)
        return subprocess.run(
            words, env=env, timeout=timeout, capture_output=True, text=True
        )

    def called(self):
        """What was called since the last time."""
        if not self.calls.exists():
            return []
        lines = self.calls.read_text().splitlines()
        self.calls.unlink()
        return [json.loads(line) for line in lines]


@pytest.fixture
def stubs(tmp_path):
    made = Stubs(tmp_path)
    for name in ("gcloud", "xpk", "scontrol"):
        made.add(name)
    made.add("srun", SRUN)
    return made


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_strict_and_explain_themselves(stubs, name):
    text = (LAUNCH / name).read_text()
    assert text.startswith("#!/usr/bin/env bash\n# ")
    assert "\nset -euo pipefail\n" in text
    assert os.access(LAUNCH / name, os.X_OK)
    assert stubs.run("bash", "-n", LAUNCH / name).returncode == 0
    found = stubs.run(LAUNCH / name, "--help")
    assert "usage: " in found.stdout
    assert found.stderr == ""
    assert stubs.called() == []


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["tpu_pod.sh", "create"], "ZONE"),
        (["xpk.sh"], "CLUSTER"),
        (["slurm.sbatch"], "RUNS"),
    ],
)
def test_a_variable_that_is_missing_is_named(stubs, words, missing):
    found = stubs.run(LAUNCH / words[0], *words[1:])
    assert found.returncode != 0
    assert f"{missing}: is required" in found.stderr
    assert stubs.called() == []


def test_a_tpu_pod(stubs):
    where = {"ZONE": "us-west4-a", "TPU": "pod", "NFS": "10.0.0.2:/share"}
    script = LAUNCH / "tpu_pod.sh"
    vm = ["gcloud", "compute", "tpus", "tpu-vm"]
    kind = ["--accelerator-type=v5litepod-16", "--version=v2-alpha-tpuv5-lite"]

    assert stubs.run(script, "create", **where, SPOT="1").returncode == 0
    zone = "--zone=us-west4-a"
    assert stubs.called() == [[*vm, "create", "pod", zone, *kind, "--spot"]]

    found = stubs.run(script, "setup", **where)
    assert found.returncode == 0, found.stderr
    copy, *commands = stubs.called()
    assert copy[:5] == [*vm, "scp"]
    assert copy[5].endswith("/jaxtricks.tar.gz")
    assert copy[6:] == ["pod:", zone, "--worker=all"]
    listed = stubs.run("tar", "-tzf", copy[5]).stdout.splitlines()
    assert {"pyproject.toml", "jaxtricks/__init__.py"} <= set(listed)
    assert not [name for name in listed if name.startswith((".venv", "runs"))]
    for call in commands:
        assert call[:8] == [*vm, "ssh", "pod", zone, "--worker=all"]
    said = " ".join(call[8] for call in commands)
    assert "mount -t nfs 10.0.0.2:/share /mnt/runs" in said
    assert "venv/bin/pip install 'jax[tpu]' './jaxtricks[experiments]'" in said
    for call in commands:
        line = call[8].removeprefix("--command=")
        assert stubs.run("bash", "-n", "-c", line).returncode == 0

    flags = ["--name", "first", "--weighting", "linupper temperature=1"]
    assert stubs.run(script, "train", *flags, **where).returncode == 0
    ((*before, command),) = stubs.called()
    assert before == [*vm, "ssh", "pod", zone, "--worker=all"]
    words = shlex.split(command.removeprefix("--command="))
    assert words[:3] == ["cd", "jaxtricks", "&&"]
    program = ["exec", "../venv/bin/python", "-m", "experiments.train"]
    assert words[3:] == [*program, "--runs", "/mnt/runs", *flags]
    assert stubs.run(script, "train", **where).returncode == 0
    command = stubs.called()[0][-1].removeprefix("--command=")
    assert shlex.split(command)[3:] == [*program, "--runs", "/mnt/runs"]

    assert stubs.run(script, "stop", **where).returncode == 0
    assert stubs.called()[0][-1] == "--command=pkill -TERM -f '[e]xperiments.train'"
    assert stubs.run(script, "delete", **where).returncode == 0
    assert stubs.called() == [[*vm, "delete", "pod", zone, "--quiet"]]
    assert stubs.run(script, "dance", **where).returncode == 2


def test_xpk(stubs):
    where = {"CLUSTER": "pods", "RUNS": "/mnt/runs", "SLICES": "2", "WORKLOAD": "first"}
    found = stubs.run(LAUNCH / "xpk.sh", "--steps", "6", "--mix", "a b", **where)
    assert found.returncode == 0, found.stderr
    (call,) = stubs.called()
    assert call[:3] == ["xpk", "workload", "create"]
    flags = dict(zip(call[3:-3:2], call[4:-3:2], strict=True))
    assert flags == {
        "--cluster": "pods",
        "--workload": "first",
        "--tpu-type": "v5litepod-16",
        "--num-slices": "2",
        "--base-docker-image": "python:3.12",
        "--script-dir": str(processes.ROOT),
        "--termination-grace-period-seconds": "60",
        "--max-restarts": "10",
    }
    assert call[-3:-1] == ["--restart-on-user-code-failure", "--command"]
    words = shlex.split(call[-1])
    worker = words.index("experiments/launch/worker.sh")
    assert words[:worker] == [
        *["pip", "install", "jax[tpu]", ".[experiments]"],
        *["&&", "exec", "bash"],
    ]
    passed = ["--grace", "50", "--steps", "6", "--mix", "a b"]
    assert words[worker + 1 :] == ["/mnt/runs", "first", *passed]


def rows(home):
    return (home / "metrics.jsonl").read_text().splitlines()


@pytest.mark.slow
def test_slurm_starts_two_processes_that_find_each_other(stubs, tmp_path):
    corpus.write(tmp_path / "text")
    # jax makes the port of the job's number: one that is free now.
    job = next(n for n in range(1, 4096) if free(n % 2**12 + 65535 - 2**12 + 1))
    where = {
        "RUNS": str(tmp_path / "runs"),
        "PYTHON": sys.executable,
        "SLURM_JOB_ID": str(job),
    }
    flags = [*TINY, f"--data={tmp_path / 'text'}", "--steps=5"]
    found = stubs.run(LAUNCH / "slurm.sbatch", *flags, **where)
    assert found.returncode == 0, found.stderr
    (call,) = stubs.called()
    program = [sys.executable, "-m", "experiments.train"]
    assert call[:5] == ["srun", "--kill-on-bad-exit=1", *program]
    assert call[5:] == [
        *["--runs", where["RUNS"], "--name", "train", "--grace", "100"],
        *flags,
    ]
    home = tmp_path / "runs" / "train"
    assert json.loads((home / "env.json").read_text())["processes"] == 2
    assert [json.loads(row)["step"] for row in rows(home)] == [2, 4, 5]
    assert json.loads((home / "results.json").read_text())["step"] == 5

    # Stopped before its end, it goes back to the queue.
    stubs.add("srun")
    where["NAME"] = "other"
    assert stubs.run(LAUNCH / "slurm.sbatch", *flags, **where).returncode == 0
    assert stubs.called()[1:] == [["scontrol", "requeue", str(job)]]


def free(port):
    import socket

    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@pytest.mark.slow
def test_a_pod_passes_sigterm_on_and_fails_until_it_is_finished(tmp_path):
    corpus.write(tmp_path / "text")
    flags = [*TINY, f"--data={tmp_path / 'text'}", "--steps=200"]
    command = ["bash", LAUNCH / "worker.sh", tmp_path / "runs", "first", *flags]
    env = processes.environment(PYTHON=sys.executable)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    home = tmp_path / "runs" / "first"
    pod = subprocess.Popen(command, env=env, **pipes)
    while pod.poll() is None and not (home / "checkpoints" / "5").exists():
        time.sleep(0.01)
    pod.send_signal(signal.SIGTERM)
    ((status, _, err),) = processes.ends([pod], 60)
    assert status == 1, err
    assert "stopped by SIGTERM" in err
    assert err.endswith("first is not finished: start it again\n")
    assert not (home / "results.json").exists()
    ((status, out, err),) = processes.ends(
        [subprocess.Popen(command, env=env, **pipes)]
    )
    assert (status, err) == (0, "")
    assert "goes on from step" in out
    assert (home / "results.json").exists()


def blocks(title):
    """The shell commands of a part of the page."""
    part = re.search(rf"^## {title}\n(.*?)(?=^## )", PAGE, re.S | re.M)
    return re.findall(r"^```sh\n(.*?)^```", part[1], re.S | re.M)


@pytest.mark.slow
def test_the_page_followed_literally_on_one_machine(tmp_path):
    install, *commands = blocks("Two processes on one machine")
    assert install == "pip install -e '.[experiments]'\n"
    script = "set -euo pipefail\n" + "".join(commands)
    # One after the other with other tests, on a port that may be taken.
    script = script.replace("localhost:8476", f"localhost:{processes.free_port()}")
    env = processes.environment()
    env["PATH"] = f"{os.path.dirname(sys.executable)}:{env['PATH']}"
    found = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=env,
        timeout=600,
        capture_output=True,
        text=True,
    )
    assert (found.returncode, found.stderr) == (0, "")
    first, alone = (json.loads(line) for line in found.stdout.splitlines()[-2:])
    assert first["step"] == alone["step"] == 40
    assert first["loss"] == pytest.approx(alone["loss"], rel=1e-4)


def test_the_page_names_every_script_and_what_was_never_run():
    for name in SCRIPTS:
        assert re.search(rf"[`/]{re.escape(name)}\b", PAGE)
    assert "nothing here was\never run on a TPU" in PAGE
    for title in ("A TPU pod slice, with gcloud", "TPU slices on GKE, with xpk"):
        for line in "".join(blocks(title)).splitlines():
            assert subprocess.run(["bash", "-n", "-c", line]).returncode == 0
