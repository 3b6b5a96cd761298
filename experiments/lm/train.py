"""The run: every arm in turn, each from its newest good checkpoint, then the report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import PyTree

from jaxtricks import kernels, merging

from . import arms, data, files, report
from .checkpoints import Checkpoints, Unreadable
from .config import BadInput, Config
from .data import Bits, Text
from .model import Transformer
from .programs import Clock, Program, compare
from .report import as_json
from .screen import Screen
from .stop import Stop


def run(config: Config, stop: Stop) -> None:
    """Trains and evaluates what is not done yet, then writes and prints the result."""
    text = data.load(
        config.data,
        length=config.seq_len,
        valid_fraction=config.valid_fraction,
        valid_windows=config.valid_windows,
    )
    if len(text.train) < config.batch_size:
        raise BadInput(
            f"--batch-size: wanted <= {len(text.train)}, the windows to train on, "
            f"came {config.batch_size}"
        )
    with (
        Screen(config) as screen,
        files.claim(config, text.about, screen.say) as home,
    ):
        job = Job(config, stop, text, home, screen)
        for arm in config.arms:
            if arm == "average":
                job.average("all")
            else:
                job.train(arm)
        costs = job.costs()
    results = report.summary(config, job.baselines, job.metrics, costs)
    report.publish(results, job.metrics, home, screen.console)


class Job:
    """What the arms share: text, untrained parameters, evaluation, metrics."""

    def __init__(
        self, config: Config, stop: Stop, text: Text, home: Path, screen: Screen
    ):
        self.config, self.stop, self.text = config, stop, text
        self.home, self.screen = home, screen
        self.metrics = files.Metrics(home / "metrics.jsonl", config.arms)
        self.baselines = data.baselines(text)
        screen.introduce(text, self.baselines, home)
        self.forward, self.params = model(config)
        self.evaluate = evaluation(text, self.forward)
        self._programs = {}

    def program(self, arm: str) -> Program:
        """Compiled when first asked for; in another session, out of the cache."""
        if arm not in self._programs:
            batch = data.example(self.text.train, self.config.batch_size)
            self._programs[arm] = Program.of(*self._build(arm), batch)
        return self._programs[arm]

    def _build(self, arm: str) -> tuple[arms.State, Callable]:
        init, step = arms.build(arm, self.config, self.forward)
        return init(self.params), step

    def train(self, arm: str) -> None:
        """Brings an arm to its last step."""
        (state, _), stream = self._build(arm), self.stream()
        with self.stop.later(), self.checkpoints(arm) as saved:
            step, state = saved.restore(state, stream)
            rows = [row["step"] for row in self.metrics.of(arm) if row["step"] <= step]
            if rows != [s for s in range(1, step + 1) if self._has_row(s)]:
                self.screen.say(f"{arm}: metrics.jsonl lacks rows, so it starts again")
                saved.drop(0)
                (state, _), stream, step = self._build(arm), self.stream(), 0
            self.metrics.rewind(arm, step)
            if step < self.config.steps:
                self._go_on(arm, step, state, stream, saved)
        self.screen.end(arm, self.metrics.of(arm)[-1]["valid"]["bits_per_byte"])

    def _go_on(self, arm, step, state, stream, saved) -> None:
        """The training loop. A row is written before the checkpoint of its step."""
        self.screen.begin(arm, step)
        program, rows = self.program(arm), self.metrics.of(arm)
        clock = Clock(rows[-1]["timing"]["train_s"] if rows else 0.0)
        while step < self.config.steps:
            self.stop.check()
            batch = next(stream)
            with clock.lap(tokens=int(batch["mask"].sum())):
                state, loss = program.step(state, batch)
                loss = float(loss)  # waits for the step
            step += 1
            if self._has_row(step):
                row = {"arm": arm, "step": step, "loss": loss}
                if self._has_valid(step):
                    row["valid"] = as_json(self.evaluate(state.params))
                row["timing"] = clock.read() | {"compile_s": program.compile_s}
                self.metrics.append(row)
                self.screen.update(row)
            if step % self.config.save_every == 0 or step == self.config.steps:
                saved.save(step, state, stream)

    def average(self, arm: str) -> None:
        """Evaluates the mean of an arm's last checkpoints; makes a broken one anew."""
        row = {"arm": "average", "step": self.config.steps}
        row["checkpoints"] = self.config.steps_saved()
        if not self.metrics.of("average"):
            params = merging.linear(self._last(arm, row["checkpoints"]))
            row["valid"] = as_json(self.evaluate(params))
            self.metrics.append(row)
        row = self.metrics.of("average")[-1]
        self.screen.end("average", row["valid"]["bits_per_byte"])

    def _last(self, arm: str, steps: list[int]) -> list[PyTree]:
        """The parameters at these steps, trained anew where they are broken."""
        like, _ = self._build(arm)
        with self.checkpoints(arm) as saved:
            try:
                return [saved.read(s, like, self.stream()).params for s in steps]
            except Unreadable as reason:
                self.screen.say(f"{arm}: {reason}")
                saved.drop(reason.step)
        self.train(arm)
        return self._last(arm, steps)

    def costs(self) -> dict[str, dict]:
        """Of a step of each arm, measured once."""
        path = self.home / "costs.json"
        if not path.exists():
            programs = {
                a: self.program(a) for a in self.config.arms if a in arms.TRICKS
            }
            rounds = min(30, self.config.steps)
            files.write_json(path, compare(programs, next(self.stream()), rounds))
        return json.loads(path.read_text())

    def stream(self):
        config = self.config
        return data.batches(
            self.text.train, batch_size=config.batch_size, seed=config.seed
        )

    def checkpoints(self, arm: str) -> Checkpoints:
        folder = self.home / "checkpoints" / arm
        return Checkpoints(
            folder, keep=self.config.keep, say=lambda s: self.screen.say(f"{arm}: {s}")
        )

    def _has_row(self, step: int) -> bool:
        return step % self.config.log_every == 0 or self._has_valid(step)

    def _has_valid(self, step: int) -> bool:
        return step % self.config.valid_every == 0 or step == self.config.steps


def model(config: Config) -> tuple[Callable[[PyTree, Any], tuple], PyTree]:
    """(forward, untrained parameters): the module as a function of a dict of arrays."""
    graph, params = nnx.split(
        Transformer(
            d_model=config.d_model,
            layers=config.layers,
            heads=config.heads,
            tied=config.tied,
            seed=config.seed,
        ),
        nnx.Param,
    )
    return lambda p, tokens: nnx.merge(graph, p)(tokens), nnx.to_pure_dict(params)


def evaluation(text: Text, forward: Callable) -> Callable[[PyTree], Bits]:
    """params -> bits per byte on the validation windows."""
    batches = data.stack(text.valid, 32)

    @jax.jit
    def nll(params, batch):
        hidden, head = forward(params, batch["inputs"])
        losses = kernels.linear_cross_entropy(
            hidden, head, batch["targets"], where=batch["mask"]
        )
        return losses.sum(axis=-1)

    def evaluate(params):
        sums = np.concatenate([nll(params, batch) for batch in batches])
        return data.bits(sums[: len(text.valid)].astype(np.float64), text)

    return evaluate
