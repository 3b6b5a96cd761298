"""What a gradient through training costs: memory, steps, time, a run that is killed.

    python -m experiments.benchmarks.metagrad

The gradient of a loss after T steps of SGD with momentum, in the weights of all
examples: compiled temporaries of each policy of `metagrad.scan`, how far their
gradients are from each other, steps counted while they run, time beside plain training;
what `metagrad.mixed` saves; and `metagrad.replay` on the disk, killed on the way
forward and on the way back. Written to docs/metagrad.md, between two markers.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from operator import truediv
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from rich.console import Console

from jaxtricks import losses, metagrad

from .. import costs, pages
from ..config import BadInput, Failed
from ..small.tables import markdown
from .sharpness import interval

POLICIES = ("none", "step", "offload", "sqrt", "replay")
PROGRAM = "experiments.benchmarks.metagrad"
MEGA = 10**6
FEATURES, CLASSES = 64, 10


@dataclass(frozen=True)
class Benchmark:
    """Memory, steps and time of meta-gradients."""

    steps: tuple[int, ...] = (256, 1024, 4096)
    """Of the runs whose compiled temporaries are asked for."""
    timed: int = 1024
    """Of the runs that are counted and timed."""
    rounds: int = 5
    """Gradients of each policy that are timed, in turns."""
    examples: int = 1024
    batch_size: int = 128
    width: int = 256
    """Of the hidden layer."""
    most_mb: int = 2000
    """A program that takes more is compiled, not run."""
    deep: tuple[int, int, int] = (8, 256, 16)
    """Layers, batch and steps of the network on which mixed mode is shown."""
    disk_steps: int = 2000
    """Of the run that is killed and resumed."""
    segment: int = 20
    """Of its steps in one program."""
    docs: Path = Path("docs/metagrad.md")
    """The page that gets the tables, between its markers, or at its end."""
    write: bool = True
    """Off: the page stays as it is."""
    child: str = ""
    """For this program's own use: a directory, and when to end."""


class Problem(NamedTuple):
    """A network and what it is trained on."""

    step: Callable  # (state, t, weights) -> (state, None)
    state: tuple
    batches: np.ndarray  # [T], their numbers: data by index take no room in a carry
    weights: jax.Array  # [examples]
    objective: Callable  # (state, weights) -> loss on other examples


def problem(
    flags: Benchmark, steps: int, *, layers: int = 1, batch=None, mixed=False
) -> Problem:
    """Labels of a linear teacher, some wrong; rows by index."""
    rng = np.random.default_rng(0)
    n, width = flags.examples, flags.width
    x = rng.normal(size=(2 * n, FEATURES)).astype(np.float32)
    y = np.argmax(x @ rng.normal(size=(FEATURES, CLASSES)), axis=-1)
    y[: n // 10] = rng.integers(0, CLASSES, n // 10)
    sizes = [FEATURES, *[width] * layers, CLASSES]
    params = [
        {
            "w": rng.normal(size=(a, b)).astype(np.float32) / a**0.5,
            "b": np.zeros(b, np.float32),
        }
        for a, b in pairwise(sizes)
    ]
    params, x, y = jax.device_put((params, x, y.astype(np.int32)))
    tx = optax.sgd(0.02, momentum=0.9)

    def loss(params, rows, weights):
        hidden = x[rows]
        for i, layer in enumerate(params):
            out = hidden @ layer["w"] + layer["b"][None]
            if i == len(params) - 1:
                hidden = out
            else:  # residual where it fits
                out = jax.nn.gelu(out)
                hidden = hidden + out if i else out
        return jnp.mean(weights * losses.cross_entropy(hidden, y[rows]))

    grad = metagrad.mixed(jax.grad(loss)) if mixed else jax.grad(loss)

    def step(state, t, weights):
        (params, opt), rows = state, table[t]
        updates, opt = tx.update(grad(params, rows, weights[rows]), opt, params)
        return (optax.apply_updates(params, updates), opt), None

    def objective(state, weights):
        del weights
        rows = jnp.arange(n, n + min(n, flags.batch_size))
        return loss(state[0], rows, jnp.ones(len(rows)))

    table = rng.integers(0, n, (steps, batch or flags.batch_size), np.int32)
    table, state = jax.device_put(table), (params, tx.init(params))
    numbers = np.arange(steps, dtype=np.int32)
    return Problem(step, state, numbers, jnp.ones(n), objective)


def trained(p: Problem, policy: str, weights, **kwargs):
    """The objective after training."""
    state, _ = metagrad.scan(
        lambda s, t: p.step(s, t, weights),
        p.state,
        p.batches,
        policy=policy,
        **kwargs,
    )
    return p.objective(state, weights)


def compiled(p: Problem, policy: str):
    """The gradient's program."""
    grad = jax.grad(lambda weights: trained(p, policy, weights))
    return jax.jit(grad).lower(p.weights).compile()


def temporaries(program) -> int:
    return program.memory_analysis().temp_size_in_bytes


def executed(p: Problem, policy: str) -> int:
    """Steps that run in a gradient, counted while it runs."""
    runs = []

    def step(state, t, weights):
        jax.debug.callback(lambda _: runs.append(1), t)
        return p.step(state, t, weights)

    jax.block_until_ready(compiled(p._replace(step=step), policy)(p.weights))
    jax.effects_barrier()
    return len(runs)


def distance(a, b) -> float:
    """Relative, in the 2-norm."""
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


# --- policies -------------------------------------------------------------------------


def memory(flags: Benchmark, console: Console) -> tuple[dict, dict]:
    """(policy, T) -> bytes, and the distance from the first policy that runs."""
    taken, apart = {}, {}
    for steps in flags.steps:
        p, reference = problem(flags, steps), None
        for policy in POLICIES:
            with console.status(f"{policy}, T = {steps}"):
                program = compiled(p, policy)
                taken[policy, steps] = temporaries(program)
                if taken[policy, steps] > flags.most_mb * MEGA:
                    continue
                got = program(p.weights)
                reference = got if reference is None else reference
                apart[policy, steps] = distance(got, reference)
    return taken, apart


def planned(flags: Benchmark, steps: int) -> dict[str, tuple[int, int]]:
    """policy -> (bytes, steps run), by `metagrad.plan`."""
    p = problem(flags, steps)
    found = metagrad.plan(
        lambda s, t: p.step(s, t, p.weights), p.state, p.batches, branching=[4]
    )
    # A CPU has one memory.
    return {c.policy: (c.bytes + c.host, c.evaluations) for c in found.costs}


def timed(flags: Benchmark, console: Console) -> tuple[dict, dict]:
    """(policy -> steps run, policy -> seconds); "training" is without a gradient."""
    p = problem(flags, flags.timed)
    plain = jax.jit(lambda weights: trained(p, "none", weights))
    programs = {"training": again(p, plain)}
    counted = {}
    for policy in POLICIES:
        with console.status(f"counting {policy}"):
            program = compiled(p, policy)
            if temporaries(program) > flags.most_mb * MEGA:
                continue
            programs[policy] = again(p, program)
            counted[policy] = executed(p, policy)

    with console.status(f"{flags.rounds} rounds"):
        laps = costs.laps(programs, flags.rounds, before=1)
    return counted, laps


def again(p: Problem, run: Callable) -> tuple[jax.Array, Callable]:
    """For `costs.laps`: every lap from the same weights."""
    return p.weights, lambda at: (jax.block_until_ready(run(at)), at)[1]


def policies_table(flags, taken, apart, counted, laps) -> str:
    first, last = flags.steps[0], flags.steps[-1]
    plans, runs = (planned(flags, steps) for steps in (last, flags.timed))
    head = [
        "policy",
        *(f"MB, T = {steps}" for steps in flags.steps),
        f"{last} by {first}",
        "planned MB",
        "farthest",
        f"steps, T = {flags.timed}",
        "planned",
        "time",
        "95 %",
    ]
    rows = []
    for policy in POLICIES:
        mb = [taken[policy, steps] / MEGA for steps in flags.steps]
        far = [apart[key] for key in apart if key[0] == policy]
        middle, spread = "", ""
        if policy in laps:
            ratios = [*map(truediv, laps[policy], laps["training"])]
            middle, low, high = interval(ratios)
            middle, spread = f"{middle:.1f}x", f"{low:.1f} to {high:.1f}"
        rows.append(
            [
                f"`{policy}`",
                *(f"{x:.2f}" for x in mb),
                f"{mb[-1] / mb[0]:.2f}x",
                f"{plans[policy][0] / MEGA:.2f}",
                f"{max(far):.0e}" if far else "not run",
                str(counted.get(policy, "not run")),
                str(runs[policy][1]),
                middle,
                spread,
            ]
        )
    return markdown(head, rows)


# --- mixed mode -----------------------------------------------------------------------


def mixed_table(flags: Benchmark, console: Console) -> str:
    layers, batch, steps = flags.deep
    rows, programs, taken, grads = [], {}, {}, {}
    for policy in ("none", "step", "replay"):
        for mixed in (False, True):
            with console.status(f"mixed={mixed}, {policy}"):
                p = problem(flags, steps, layers=layers, batch=batch, mixed=mixed)
                program = compiled(p, policy)
                taken[policy, mixed] = temporaries(program)
                grads[policy, mixed] = program(p.weights)
                programs[policy, mixed] = again(p, program)
    laps = costs.laps(programs, flags.rounds, before=1)
    for policy in ("none", "step", "replay"):
        plain, ours = (policy, False), (policy, True)
        middle, low, high = interval([*map(truediv, laps[ours], laps[plain])])
        rows.append(
            [
                f"`{policy}`",
                f"{taken[plain] / MEGA:.1f}",
                f"{taken[ours] / MEGA:.1f}",
                f"{taken[plain] / taken[ours]:.2f}x less",
                f"{middle:.2f}x",
                f"{low:.2f} to {high:.2f}",
                f"{distance(grads[ours], grads[plain]):.0e}",
            ]
        )
    head = ("policy", "MB", "MB, mixed", "saving", "time", "95 %", "distance")
    return markdown(head, rows)


# --- on the disk ----------------------------------------------------------------------


def disk_run(
    flags: Benchmark, directory: Path | None, kill: int = 0
) -> tuple[str, int]:
    """(the bits of the gradient, steps run); ends itself when a batch is asked for the
    kill-th time.
    """
    p = problem(flags, flags.disk_steps)
    calls = 0

    def batch(t):
        nonlocal calls
        calls += 1
        if calls == kill:
            os.kill(os.getpid(), signal.SIGKILL)
        return p.batches[t]

    got = metagrad.replay(
        p.step,
        p.state,
        batch,
        p.objective,
        p.weights,
        length=flags.disk_steps,
        segment=flags.segment,
        directory=directory,
    )
    return np.asarray(got.grad).tobytes().hex(), got.evaluations


def killed(flags: Benchmark, console: Console) -> list[list[str]]:
    """Rows: what was done, steps run, whether its bits are those of a run in memory."""
    whole, evaluations = disk_run(flags, None)
    rows = [["in memory", str(evaluations), ""]]
    with tempfile.TemporaryDirectory() as folder:
        for name, kill in (
            ("on the disk, killed on the way forward", flags.disk_steps // 2),
            # Once more to check the first segment, so this is on the way back.
            ("resumed, killed on the way back", int(1.6 * flags.disk_steps)),
            ("resumed", 0),
            ("called again", 0),
        ):
            with console.status(name):
                words = [f"--child={folder}/run:{kill}"]
                words += [f"--{k.replace('_', '-')}={getattr(flags, k)}" for k in SAME]
                found = subprocess.run(
                    [sys.executable, "-m", "experiments.benchmarks.metagrad", *words],
                    capture_output=True,
                    text=True,
                    check=False,
                )
            if kill and found.returncode == -signal.SIGKILL:
                back = any(Path(folder, "run").glob("back-*"))
                if back != ("back" in name):
                    raise Failed(f"{name}: was killed in the other direction")
                rows.append([name, "", ""])
                continue
            if kill or found.returncode:
                raise Failed(f"{name}: ended with {found.returncode}: {found.stderr}")
            runs, bits = found.stdout.split("said: ")[1].split()
            rows.append([name, runs, "equal" if bits == whole else "different"])
    return rows


SAME = ("disk_steps", "segment", "examples", "batch_size", "width")


# --- the page -------------------------------------------------------------------------


def page(flags: Benchmark, console: Console) -> str:
    taken, apart = memory(flags, console)
    counted, laps = timed(flags, console)
    layers, batch, steps = flags.deep
    parts = [
        "`python -m experiments.benchmarks.metagrad` made these tables. A network of "
        f"{FEATURES}-{flags.width}-{CLASSES}, SGD with momentum on batches of "
        f"{flags.batch_size}, f32; the gradient of the loss after T steps in the "
        f"weights of {flags.examples} examples. MB are 10^6 bytes of the compiled "
        "program's temporaries (`memory_analysis`), planned ones those of "
        f"`metagrad.plan` at T = {flags.steps[-1]}; farthest: the largest relative "
        "distance, over these T, from the gradient of the first policy that was run "
        f"(what takes more than {flags.most_mb} MB was not); steps: counted while a "
        "gradient runs, and those of `metagrad.plan`; time: of plain training at "
        f"T = {flags.timed}, the median over {flags.rounds} rounds in turns, and its "
        "interval.",
        policies_table(flags, taken, apart, counted, laps),
        f"`metagrad.mixed`, on {layers} layers of {flags.width}, batches of {batch} "
        f"and {steps} steps; time is that with it by that without.",
        mixed_table(flags, console),
        f"`metagrad.replay` over {flags.disk_steps} steps, in segments of "
        f"{flags.segment}, by processes that end themselves with SIGKILL; the bits are "
        "those of the gradient.",
        markdown(("run", "steps run", "bits"), killed(flags, console)),
        f"jax {jax.__version__} on "
        f"{', '.join(sorted({d.device_kind for d in jax.devices()}))}.",
    ]
    return "\n\n".join(parts)


def main(flags: Benchmark) -> None:
    if flags.child:
        directory, _, kill = flags.child.rpartition(":")
        bits, runs = disk_run(flags, Path(directory), int(kill))
        print("\nsaid:", runs, bits, flush=True)
        return
    console = Console(highlight=False)
    text = page(flags, console)
    console.print(f"\n{text}", soft_wrap=True, markup=False)
    if flags.write:
        pages.insert(flags.docs, PROGRAM, text)
        console.print(f"\nwritten to {flags.docs}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Benchmark, prog="python -m experiments.benchmarks.metagrad"))
    except (BadInput, Failed) as error:
        raise SystemExit(f"error: {error}") from None
