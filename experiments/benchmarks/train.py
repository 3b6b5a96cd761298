"""What the training program costs: beside a loop by hand, with each trick, on meshes.

    python -m experiments.benchmarks.train

Prints three tables: time and memory of the demo model's step, a plain optax loop with
dense cross entropy first; the time of the whole program beside that loop; and the bytes
that a step sends on meshes of eight CPU devices beside the least on paper.
"""

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from .. import costs
from ..config import Config, parse
from ..stop import Stop

TRICKS = {
    "blockwise loss": [],
    "wsd": ["--schedule", "wsd", "decay_steps=120"],
    "label smoothing, z-loss": [
        *["--loss", "linear_cross_entropy", "label_smoothing=0.1", "z_loss=1e-4"]
    ],
    "linupper": ["--weighting", "linupper", "temperature=1"],
    "sam": ["--sharpness", "sam", "rho=0.05"],
    "4 microbatches": ["--microbatches", "4"],
    "remat full": ["--remat", "full"],
    "bfloat16": ["--dtype", "bfloat16"],
}
TURN = 30  # steps
MESHES = ((8, 1), (4, 2), (2, 4), (1, 8))


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Time and memory of the demo model's training step, and what it sends."""

    rounds: int = 60
    """Steps of each program, which take turns."""
    steps: int = 3000
    """Steps of the whole program, and of the loop by hand, which take turns of 30."""
    only: Annotated[str, tyro.conf.arg(metavar="{all,steps,program,meshes}")] = "all"
    """One of the tables."""


def by_hand(config: Config, dataset):
    """(state, step) as one writes it: the model's logits, optax's loss, AdamW."""
    import jax
    import jax.numpy as jnp
    import optax

    from .. import models

    model = models.build(config.model, dataset)
    peak, steps = config.training.lr, config.training.steps
    rate = optax.warmup_cosine_decay_schedule(
        0.0, peak, int(config.training.warmup * steps), steps, peak * 0.1
    )
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(
            rate,
            b2=0.99,
            weight_decay=0.1,
            mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p),
        ),
    )

    def loss_fn(params, batch):
        hidden, head = model.apply(params, batch)
        nll = optax.softmax_cross_entropy_with_integer_labels(
            hidden @ head, batch["targets"]
        )
        return jnp.sum(nll * batch["mask"]) / jnp.sum(batch["mask"])

    def step(state, batch):
        params, opt = state
        loss, grads = jax.value_and_grad(loss_fn)(params, batch)
        updates, opt = tx.update(grads, opt, params)
        return (optax.apply_updates(params, updates), opt), loss

    params = jax.jit(model.init)(jax.random.key(config.training.seed))
    return (params, tx.init(params)), jax.jit(step, donate_argnums=0)


def steps_table(rounds: int) -> Table:
    """Each trick's step beside the one by hand; they take turns."""

    from .. import data, step
    from .. import mesh as meshes

    config = parse(["--mesh-data", "1"])
    dataset = data.load(config.data, seed=0)
    batch = next(data.stream(dataset, config.data, steps=1, seed=0))
    state, hand = by_hand(config, dataset)
    compiled = hand.lower(state, batch).compile()
    programs = {"by hand, dense": (state, lambda s: compiled(s, batch)[0])}
    memory = {"by hand, dense": compiled.memory_analysis().temp_size_in_bytes}
    for name, flags in {"dense": ["--loss", "cross_entropy"], **TRICKS}.items():
        config = parse(["--mesh-data", "1", *flags])
        mesh = meshes.make(config.mesh)
        program = step.build(config, dataset, mesh)
        on_mesh = meshes.put(batch, mesh)
        run = partial(one_step, program, on_mesh)
        programs[name] = (program.init(), run)
        memory[name] = costs.temp_bytes(program.lower(on_mesh))
    laps = costs.laps(programs, rounds)
    base = laps["by hand, dense"]
    table = Table("step", "ms", "of by hand", "temp MiB", title="The step")
    for name, times in laps.items():
        table.add_row(
            name,
            f"{1e3 * statistics.median(times):.1f}",
            f"{costs.ratio(times, base):.2f}x",
            f"{memory[name] / 2**20:.1f}",
        )
    return table


def one_step(program, batch, state):
    return program.step(state, batch, float("inf"))[0]


class Turns(Stop):
    """After every `TURN` steps of the program as many by hand, so that what else the
    machine does falls on both alike; keeps the seconds of either's turns."""

    def __init__(self, state, step: Callable, stream: Iterator):
        super().__init__()
        self._state, self._step, self._stream = state, step, stream
        self._done, self._began = 0, 0.0
        self.program, self.hand = [], []

    def check(self) -> None:
        """Called by the program before each step."""
        super().check()
        # Just before a checkpoint is due, when the one before has long been written.
        if self._done % TURN == TURN - 1:
            now = time.perf_counter()
            for _ in range(TURN):
                self._state, loss = self._step(self._state, next(self._stream))
                float(loss)
            if self._began:  # not the first turns, in which both are compiled
                self.program.append(now - self._began)
                self.hand.append(time.perf_counter() - now)
            self._began = time.perf_counter()
        self._done += 1


def program_table(steps: int) -> Table:
    """Seconds a step of the whole program, with all that a step entails (fetching,
    rows, the tally, a checkpoint), and of a loop by hand, in turns."""
    from .. import data
    from ..train import train

    programs = {
        "experiments.train": [],
        "with the dense loss": ["--loss", "cross_entropy"],
        f"with a checkpoint every {TURN} steps": [f"--save-every={TURN}"],
    }
    common = [f"--steps={steps}", f"--valid-every={steps}", f"--save-every={steps}"]
    head = ("run", "ms a step", "by hand", "ratio", "middle half")
    table = Table(*head, title="The program, and a loop by hand with the dense loss")
    for name, flags in programs.items():
        with tempfile.TemporaryDirectory() as folder:
            where = ["--mesh-data=1", f"--runs={folder}", "--name=run"]
            config = parse([*common, *where, *flags])
            dataset = data.load(config.data, seed=0)
            stream = data.stream(dataset, config.data, steps=steps, seed=0)
            turns = Turns(*by_hand(config, dataset), stream)
            train(config, turns)
        ratios = np.divide(turns.program, turns.hand)
        low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
        table.add_row(
            name,
            f"{1e3 * statistics.median(turns.program) / TURN:.2f}",
            f"{1e3 * statistics.median(turns.hand) / TURN:.2f}",
            f"{middle:.3f}x",
            f"{low:.2f}-{high:.2f}",
        )
    return table


def meshes_table() -> Table:
    """What a step sends, from its HLO; with eight CPU devices."""
    from .. import data, plan, step
    from .. import mesh as meshes
    from ..collectives import collectives

    head = ("data x model", "KiB a device sends", "least", "ratio", "what")
    table = Table(*head, title="Bytes a step")
    for rows, columns in MESHES:
        flags = [f"--mesh-data={rows}", f"--mesh-model={columns}", "--heads=8"]
        config = parse([*flags, "--d-model=128", "--batch-size=16"])
        dataset = data.load(config.data, seed=0)
        mesh = meshes.make(config.mesh)
        program = step.build(config, dataset, mesh)
        batch = meshes.put(
            next(data.stream(dataset, config.data, steps=1, seed=0)), mesh
        )
        hlo = program.lower(batch).compile().as_text()
        found = collectives(hlo, dict(mesh.shape))
        sent = sum(c.sent for c in found)
        tokens = config.data.batch_size * config.data.seq_len
        shape = plan.Shape(128, 2, dataset.classes, tokens, config.data.seq_len, 4)
        least = sum(plan.sends(shape, data=rows, model=columns, gathers=1).values())
        kinds = {}
        for c in found:
            name = f"{c.kind} over {'+'.join(c.axes) or 'some'}"
            kinds[name] = kinds.get(name, 0) + c.sent / 1024
        largest = sorted(kinds.items(), key=lambda kind: -kind[1])
        table.add_row(
            f"{rows} x {columns}",
            f"{sent / 1024:.0f}",
            f"{least / 1024:.0f}",
            f"{sent / least:.2f}x",
            ", ".join(f"{name} {size:.0f}" for name, size in largest if size >= 1),
        )
    return table


def main(flags: Benchmark) -> None:
    if flags.only in ("all", "program") and flags.steps < 3 * TURN:
        least = f"{3 * TURN}, two turns after the one that compiles"
        said = f"error: --steps: wanted at least {least}, came {flags.steps}"
        print(said, file=sys.stderr)
        sys.exit(2)
    console = Console(width=100, highlight=False)
    if flags.only in ("all", "steps"):
        console.print(steps_table(flags.rounds))
    if flags.only in ("all", "program"):
        console.print(program_table(flags.steps))
    if flags.only in ("all", "meshes"):
        if os.environ.get("JAX_NUM_CPU_DEVICES") == "8":
            console.print(meshes_table())
        else:  # in a process of its own, which has eight devices
            env = os.environ | {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
            command = [sys.executable, "-m", "experiments.benchmarks.train"]
            subprocess.run([*command, "--only", "meshes"], env=env, check=True)


if __name__ == "__main__":
    main(tyro.cli(Benchmark, prog="python -m experiments.benchmarks.train"))
