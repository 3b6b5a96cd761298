"""What the training program costs: beside a loop by hand, with each trick, on meshes.

    python -m experiments.benchmarks.train

Prints three tables: time and memory of the demo model's step, a plain optax loop with
dense cross entropy first; the time of the whole program beside that loop; and the bytes
that a step sends on meshes of eight CPU devices beside the least on paper.
"""

import contextlib
import dataclasses
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from .. import costs
from ..config import Config, parse

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
MESHES = ((8, 1), (4, 2), (2, 4), (1, 8))


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Time and memory of the demo model's training step, and what it sends."""

    rounds: int = 60
    """Steps of each program, which take turns."""
    runs: int = 5
    """Whole runs of the program and of the loop by hand, which take turns."""
    steps: int = 200
    """Steps of a whole run."""
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


def program_table(runs: int, steps: int) -> Table:
    """Seconds a step of whole runs, between two rows, so with all that a step entails:
    fetching, rows, the tally; with and without checkpoints."""
    from .. import data
    from ..stop import Stop
    from ..train import train

    every = {"experiments.train": steps, "with a checkpoint every 30 steps": 30}
    flags = [f"--steps={steps}", "--mesh-data=1", f"--valid-every={steps}"]
    flags += ["--loss", "cross_entropy"]
    spent = {name: [] for name in ("by hand", *every)}
    for run in range(runs):
        for name, save in every.items():
            with tempfile.TemporaryDirectory() as folder:
                where = [f"--runs={folder}", f"--name=run{run}", f"--save-every={save}"]
                config = parse([*flags, *where])
                with contextlib.redirect_stdout(io.StringIO()):
                    train(config, Stop())
                lines = (Path(folder) / f"run{run}" / "metrics.jsonl").read_text()
            rows = [json.loads(line) for line in lines.splitlines()][:-1]
            seconds = rows[-1]["timing"]["at"] - rows[0]["timing"]["at"]
            spent[name].append(seconds / (rows[-1]["step"] - rows[0]["step"]))
        dataset = data.load(config.data, seed=0)
        state, step = by_hand(config, dataset)
        stream = data.stream(dataset, config.data, steps=steps, seed=0)
        for i in range(steps):
            if i == 10:
                began = time.perf_counter()
            state, loss = step(state, next(stream))
            float(loss)
        spent["by hand"].append((time.perf_counter() - began) / (steps - 10))
    table = Table("run", "ms a step", "of by hand", title="The program")
    for name, seconds in spent.items():
        ratio = costs.ratio(seconds, spent["by hand"])
        median = 1e3 * statistics.median(seconds)
        table.add_row(name, f"{median:.2f}", f"{ratio:.3f}x")
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
    console = Console(width=100, highlight=False)
    if flags.only in ("all", "steps"):
        console.print(steps_table(flags.rounds))
    if flags.only in ("all", "program"):
        console.print(program_table(flags.runs, flags.steps))
    if flags.only in ("all", "meshes"):
        if os.environ.get("JAX_NUM_CPU_DEVICES") == "8":
            console.print(meshes_table())
        else:  # in a process of its own, which has eight devices
            env = os.environ | {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
            command = [sys.executable, "-m", "experiments.benchmarks.train"]
            subprocess.run([*command, "--only", "meshes"], env=env, check=True)


if __name__ == "__main__":
    main(tyro.cli(Benchmark, prog="python -m experiments.benchmarks.train"))
