"""A training run of real processes that a test disturbs, and what it leaves behind."""

import json
import time
from pathlib import Path

from tests.experiments import corpus, processes

TINY = [
    *["--data=text", "--seq-len=32", "--batch-size=8", "--valid-examples=16"],
    *["--d-model=16", "--layers=1", "--heads=1"],
    *["--save-every=5", "--log-every=2", "--valid-every=50", "--peer-timeout=5"],
]


class Training:
    """`python -m experiments.train` in a folder, in one process or in two."""

    def __init__(self, folder: Path, *flags, count=1, devices=2):
        self.folder, self.flags = folder, [*TINY, *flags]
        self.count, self.devices, self.running = count, devices, []
        if not (folder / "text").exists():
            corpus.write(folder / "text")
        self.home = folder / "runs" / "train"

    def start(self, *flags):
        words = ["-m", "experiments.train", *self.flags, *flags]
        where = {"cwd": self.folder, "env": self.environment()}
        if self.count == 1:
            self.running = [processes.start(*words, **where)]
        else:
            self.running = processes.together(self.count, *words, **where)

    def environment(self):
        """One compilation cache for all runs of a test, so that starts are fast."""
        cache = str(self.folder.parent / "cache")
        more = {"PYTHONWARNINGS": "error", "JAX_COMPILATION_CACHE_DIR": cache}
        return processes.environment(self.devices // self.count, **more)

    def ends(self, timeout=300):
        """[(status, output, errors)] of its processes."""
        return processes.ends(self.running, timeout)

    def finish(self, *flags):
        """Runs to the end, which must be a good one."""
        self.start(*flags)
        found = self.ends()
        assert [(status, err) for status, _, err in found] == [(0, "")] * self.count
        return found[0][1]

    def until(self, seen, timeout=180):
        """Waits for `seen()`, and says whether it came before the end."""
        until = time.monotonic() + timeout
        while not seen():
            assert time.monotonic() < until, "nothing happened"
            if any(process.poll() is not None for process in self.running):
                return False
            time.sleep(0.001)
        return True

    def send(self, signum, *which):
        for i in which or range(self.count):
            self.running[i].send_signal(signum)

    def rows(self):
        """How many whole lines metrics.jsonl has."""
        path = self.home / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def saved(self):
        """The steps of the whole checkpoints."""
        names = [path.name for path in (self.home / "checkpoints").glob("*")]
        return sorted(int(name) for name in names if name.isdigit())

    def halves(self):
        """The folders of a save that goes on, or that a kill has left."""
        return {path.name for path in (self.home / "checkpoints").glob("*tmp*")}

    def outcome(self):
        """metrics.jsonl and results.json without what was measured by the clock."""
        lines = (self.home / "metrics.jsonl").read_text().splitlines()
        found = [json.loads(line) for line in lines]
        found.append(json.loads((self.home / "results.json").read_text()))
        for row in found:
            row.pop("timing", None)
        return [json.dumps(row) for row in found]
