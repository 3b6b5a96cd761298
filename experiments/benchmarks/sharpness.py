"""What sharpness-aware variants cost: gradients executed, time, memory.

    python -m experiments.benchmarks.sharpness

One table, each variant of `experiments.sharpness` before SGD with momentum on a ResNet:
how many gradients and forward passes an update really executes, its time beside that of
the optimizer by itself, there and on a ViT, and what memory it adds. Written to
docs/sharpness.md, between two markers.

On a CPU, XLA runs a convolution's gradient many times slower inside `lax.cond` and
`lax.scan` than outside of them (jax-ml/jax#12868): of LookSAM's and the split variants'
times the ViT's, of products alone, is the one that carries over.
"""

import contextlib
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from operator import truediv
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jaxtyping import PyTree
from rich.console import Console

from jaxtricks import losses

from .. import config, costs, models, pages
from ..config import BadInput, Failed
from ..sharpness import variants
from ..sharpness.method import Method, Task, method
from ..sharpness.variants import BASE
from ..small import network
from ..small.tables import markdown

OPTAX = "optax.contrib.sam, opaque"  # what `sam` is to be compared with
PROGRAM = "experiments.benchmarks.sharpness"
PERIOD = 10  # updates in a lap: a multiple of LookSAM's 5
CLASSES, EXAMPLES, RATE = 10, 1024, 0.01


@dataclass(frozen=True)
class Benchmark:
    """Gradients, time and memory of an update with every sharpness variant."""

    rounds: int = 15
    """Laps of ten updates of each variant, which take turns."""
    batch_size: int = 40
    """Images in a batch."""
    side: int = 16
    """Of the random images, which are square."""
    width: int = 16
    """Of the ResNet's first stage."""
    layers: int = 1
    """Blocks in each of its three stages."""
    vit_width: int = 64
    """Of the ViT, on patches of 4 by 4."""
    vit_layers: int = 2
    """Its blocks."""
    only: tuple[str, ...] = ()
    """Some variants, as `python -m experiments.sharpness --list` has them; then nothing
    is written."""
    docs: Path = Path("docs/sharpness.md")
    """The page that gets the table, between its markers, or at its end."""


class Count(NamedTuple):
    """What an update executes, in batches."""

    gradients: Fraction
    second: Fraction  # those that are differentiated again: Hessian-vector products
    forwards: Fraction  # without a gradient


class Cost(NamedTuple):
    """Of one variant."""

    count: Count
    temp: int  # bytes of the compiled update beside arguments and results
    state: int  # bytes that it keeps from update to update, without the parameters


# --- what is executed -----------------------------------------------------------------


@contextlib.contextmanager
def counting() -> Iterator[tuple[Callable, Counter]]:
    """(logits -> logits, how many examples went each way).

    The count is made where the logits are when the program runs, not where a gradient
    is written down: a branch that `lax.cond` does not take counts nothing, nor does
    what nobody reads and the compiler drops; a gradient of half a batch is half a one,
    whoever asked for it.
    """
    seen: Counter = Counter()

    def note(way, x):
        """x, which cannot be had without the call."""

        def add(x):  # shapes alone: to wait for its values may be to wait for ever
            seen[way] += math.prod(x.shape[:-1])
            return np.zeros(x.shape, x.dtype)

        like = jax.ShapeDtypeStruct(x.shape, x.dtype)
        x, zero = jax.lax.stop_gradient(x), partial(jax.pure_callback, add, like)
        return zero(x, vmap_method="expand_dims")

    @jax.custom_jvp
    def back(ct, x):  # what is of x cannot be moved out of a loop over batches
        return ct + note("gradient", x)

    @back.defjvp
    def twice(primals, tangents):
        return back(*primals) + note("second", primals[1]), tangents[0]

    @jax.custom_vjp
    def counted(x):
        return x + note("forward", x)

    counted.defvjp(lambda x: (x, x), lambda x, ct: (back(ct, x),))
    yield counted, seen


def executed(
    made: Callable[[Task], Method], task: Task, params, batches: Sequence[dict]
) -> Count:
    """Of an update, averaged over these."""
    with counting() as (counted, seen):
        logits = task.logits
        one = made(task._replace(logits=lambda *args: counted(logits(*args))))
        step = jax.jit(one.step)
        state = one.init(params)
        for i, batch in enumerate(batches):
            params, state = step(params, state, batch, jax.random.key(i))
        jax.block_until_ready((params, state))
    n = sum(len(batch["labels"]) for batch in batches)
    return Count(*(Fraction(seen[way], n) for way in ("gradient", "second", "forward")))


# --- the programs ---------------------------------------------------------------------


def problem(
    shape: config.Model, batch_size: int, side: int
) -> tuple[Task, PyTree, list[dict]]:
    """A network, its parameters, and batches."""
    facts = models.Facts("images", ("all",), CLASSES, (side, side, 3))
    made = models.build(shape, facts)

    @jax.jit
    def logits(params, batch):
        hidden, head = made.apply(params, batch)
        return hidden @ head

    params = jax.jit(made.init)(jax.random.key(0))
    return Task(logits, CLASSES, EXAMPLES), params, draw(batch_size, side)


def counted_on(batch_size: int) -> tuple[Task, PyTree, list[dict]]:
    """Three convolutions, which compile in a moment: what an update executes is the
    method's, whatever the network."""
    params = network.init(jax.random.key(0), "convnet", (8, 8, 3), 2, CLASSES)
    task = Task(
        lambda params, batch: network.apply(params, batch["image"], "convnet"),
        CLASSES,
        EXAMPLES,
    )
    return task, params, draw(batch_size, 8)


def draw(batch_size: int, side: int) -> list[dict]:
    """Random images and labels, a batch for each update of a lap."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(EXAMPLES, side, side, 3)).astype(np.float32)
    labels = rng.integers(0, CLASSES, EXAMPLES, np.int32)
    rows = rng.integers(0, EXAMPLES, (PERIOD, batch_size))
    return jax.device_put(
        [
            {"image": images[i], "labels": labels[i], "index": i.astype(np.int32)}
            for i in rows
        ]
    )


def base() -> optax.GradientTransformation:
    return optax.sgd(RATE, momentum=0.9)


def opaque(task: Task) -> Method:
    """optax's SAM, which calls for its second gradient itself."""
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    tx = optax.contrib.sam(base(), ascent, sync_period=2, opaque_mode=True)

    def step(params, state, batch, key):
        del key

        def loss(params):
            logits = task.logits(params, batch)
            return jnp.mean(losses.cross_entropy(logits, batch["labels"]))

        grad = jax.grad(loss)
        updates, state = tx.update(
            grad(params), state, params, grad_fn=lambda params, _: grad(params)
        )
        return optax.apply_updates(params, updates), state

    return Method(tx.init, step)


def methods(names: Sequence[str], batch: int) -> dict[str, Callable[[Task], Method]]:
    """The optimizer by itself first, then optax's SAM, then those named."""
    steps, key = EXAMPLES // batch, jax.random.key(1)
    sizes = (10 * steps, steps, batch, EXAMPLES)
    run = variants.Run(*sizes, lambda step: 1.0, RATE, 0.0, key)
    ours = {name: partial(_ours, name, run) for name in [BASE, *names] if name != OPTAX}
    return {BASE: ours.pop(BASE), OPTAX: opaque, **ours}


def _ours(name: str, run: variants.Run, task: Task) -> Method:
    return method(name, task, base(), run)


def program(one: Method, params, batches: list[dict]):
    """((params, state, i), lap of PERIOD updates), and the compiled update."""
    state = one.init(params)
    key = jax.random.key(0)
    lowered = jax.jit(one.step).lower(params, state, batches[0], key)
    compiled = lowered.compile()

    def lap(at):
        params, state = at
        for batch in batches:
            params, state = compiled(params, state, batch, key)
        return params, state

    return (params, state), lap, compiled


def nbytes(tree) -> int:
    leaves = [x for x in jax.tree.leaves(tree) if hasattr(x, "nbytes")]
    return sum(x.nbytes for x in leaves)


# --- the table ------------------------------------------------------------------------


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, and its 95 % interval by order statistics, which asks nothing of how
    the values are spread; the whole range where there are too few."""
    ordered, n = sorted(values), len(values)
    below = 0.0
    for k in range(n // 2):
        below += math.comb(n, k) / 2**n
        if below > 0.025:
            break
    else:
        k = n // 2
    k = max(k - 1, 0)
    return statistics.median(ordered), ordered[k], ordered[n - 1 - k]


def exact(count: Fraction) -> str:
    """As few digits as say it all, or three."""
    return f"{float(count):.3f}".rstrip("0").rstrip(".")


def signed(size: int, unit: int) -> str:
    """In copies of the parameters."""
    return f"{size / unit:+.2f}".replace("+0.00", "0").replace("-0.00", "0")


def rows(
    found: dict[str, Cost], laps: Sequence[dict[str, list[float]]], size: int
) -> list[list[str]]:
    """Cells; the first of `found` is what the others are compared with."""
    first, *_ = found
    cells = []
    for name, cost in found.items():
        times = []
        for each in laps:  # of one network
            middle, low, high = interval([*map(truediv, each[name], each[first])])
            spread = "" if name == first else f" ({low:.2f} to {high:.2f})"
            times.append(f"{middle:.2f}x{spread}")
        cells.append(
            [
                f"`{name}`" if name not in (BASE, OPTAX) else name,
                *map(exact, cost.count),
                *times,
                signed(cost.state - found[first].state, size),
                signed(cost.temp - found[first].temp, size),
            ]
        )
    return cells


HEAD = (
    "variant",
    "gradients",
    "HVPs",
    "forward passes",
    "time, ResNet",
    "time, ViT",
    "state",
    "temporary",
)


def page(table: str, said: str, flags: Benchmark, params) -> str:
    """What goes between the markers."""
    count = sum(x.size for x in jax.tree.leaves(params))
    head = (
        f"A ResNet of {3 * flags.layers} blocks, {count} parameters, on batches of "
        f"{flags.batch_size} random images of {flags.side} by {flags.side}; SGD with "
        "momentum is the base. Gradients, those of them that are differentiated again "
        "(Hessian-vector products) and forward passes without a gradient (also those "
        "that the compiler shares with a gradient) are counted "
        f"while a compiled update runs, in batches an update, over {PERIOD} updates. "
        f"Time: of the base's; the median over {flags.rounds} rounds in which all take "
        "turns, and its 95 % interval, on this ResNet and on a ViT of "
        f"{flags.vit_layers} blocks of {flags.vit_width}. Memory that is added to the "
        "base's on the ResNet, in copies of the parameters: what is kept from update "
        "to update, and what the compiled update needs while it runs "
        "(`memory_analysis`)."
    )
    devices = ", ".join(sorted({d.device_kind for d in jax.devices()}))
    tail = f"jax {jax.__version__} on {devices}. {said}"
    command = "`python -m experiments.benchmarks.sharpness` made this table."
    return f"{command} {head}\n\n{table}\n\n{tail}"


def against_optax(laps: Sequence[dict[str, list[float]]]) -> str:
    """SAM beside optax's, on each network."""
    if "sam" not in laps[0] or OPTAX not in laps[0]:
        return ""
    said = []
    for each in laps:
        ratios = [*map(truediv, each["sam"], each[OPTAX])]
        middle, low, high = interval(ratios)
        said.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
    return (
        f"`sam` takes {' and '.join(said)} of the time of `optax.contrib.sam` in its "
        "opaque mode. On a CPU, XLA runs a convolution's gradient many times slower "
        "inside `lax.cond` and `lax.scan` (jax-ml/jax#12868): it is what LookSAM and "
        "the split variants show on the ResNet and not on the ViT."
    )


def main(flags: Benchmark) -> None:
    console = Console(highlight=False)
    names = variants.chosen(flags.only, quick=False)[1:]
    for label, missing in (
        ("without a setting", variants.without_settings()),
        ("not in the library", variants.missing()),
    ):
        if missing:
            console.print(f"{label}: {' '.join(missing)}", soft_wrap=True)
    batch, side = flags.batch_size, flags.side
    resnet = problem(
        config.Model(model="resnet", d_model=flags.width, layers=flags.layers),
        batch,
        side,
    )
    vit = problem(
        config.Model(
            model="vit", d_model=flags.vit_width, layers=flags.vit_layers, patch=4
        ),
        batch,
        side,
    )
    small = counted_on(batch)
    found, programs = {}, ({}, {})
    for name, made in methods(names, batch).items():
        with console.status(f"compiling {name}"):
            count = executed(made, *small)
            for (task, *on), into in zip((resnet, vit), programs, strict=True):
                start, lap, compiled = program(made(task), *on)
                into[name] = (start, lap)
                if into is programs[0]:
                    temp = compiled.memory_analysis().temp_size_in_bytes
                    found[name] = Cost(count, temp, nbytes(start[1]))
        said = zip(map(exact, count), HEAD[1:], strict=False)
        said = ", ".join(f"{n} {what}" for n, what in said)
        console.print(f"{name}: {said}", markup=False)
    laps = []
    for each in programs:
        with console.status(f"{flags.rounds} rounds"):
            laps.append(costs.laps(each, flags.rounds, before=1))
    params = resnet[1]
    table = markdown(HEAD, rows(found, laps, nbytes(params)))
    text = page(table, against_optax(laps), flags, params)
    console.print(f"\n{text}", soft_wrap=True, markup=False)
    if not flags.only:
        pages.insert(flags.docs, PROGRAM, text)
        console.print(f"\nwritten to {flags.docs}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Benchmark, prog=f"python -m {PROGRAM}"))
    except (BadInput, Failed) as error:
        raise SystemExit(f"error: {error}") from None
