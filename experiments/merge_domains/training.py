"""The model, its training on one domain or on all, and bits per byte.

The models of a seed are trained one after the other by one compiled program: rows of
windows and learning rates are its input.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from jaxtricks import kernels, merging

from .. import config, models, tricks
from ..objective import Batch, position_losses
from .config import Domains
from .text import NAMES, Texts, Windows

PART = 25  # updates of one call, between which it can be stopped
WARMUP, END = 0.05, 0.1  # of the updates, and of the peak learning rate


class Task(NamedTuple):
    """What is trained, on what; functions of parameters."""

    init: Callable[..., PyTree]
    apply: Callable[[PyTree, Batch], tuple[Array, Array]]
    texts: Texts
    flags: Domains


def task(flags: Domains, texts: Texts) -> Task:
    shape = config.Model(d_model=flags.d_model, layers=flags.layers, heads=flags.heads)
    made = models.build(shape, models.Facts("tokens", NAMES, 256))
    return Task(made.init, made.apply, texts, flags)


def batch(windows: Windows) -> Batch:
    """As the model and the losses take them."""
    inputs, targets = (jnp.asarray(x, jnp.int32) for x in windows[:2])
    return {"inputs": inputs, "targets": targets, "mask": jnp.asarray(windows.mask)}


def losses(of: Task, params: PyTree, data: Batch) -> Float[Array, "windows length"]:
    """In nats, 0 where nothing is predicted."""
    return position_losses(of.apply, kernels.linear_cross_entropy, params, data)


def mean(of: Task, params: PyTree, data: Batch) -> Float[Array, ""]:
    return jnp.sum(losses(of, params, data)) / jnp.maximum(jnp.sum(data["mask"]), 1)


class Stage(NamedTuple):
    """One training: on which domains, from where, how long, how fast."""

    name: str
    domains: tuple[int, ...]
    updates: int
    lr: float
    begin: str | None  # the stage whose parameters it begins with


def stages(flags: Domains) -> list[Stage]:
    every = tuple(range(len(NAMES)))
    tuned = [
        Stage(name, (i,), flags.tune, flags.tune_lr, "base")
        for i, name in enumerate(NAMES)
    ]
    long = len(NAMES) * flags.tune
    return [
        Stage("base", every, flags.pretrain, flags.lr, None),
        *tuned,
        Stage("multi-task", every, long, flags.tune_lr, "base"),
    ]


def trainer(of: Task) -> Callable[..., PyTree]:
    """(stage, seed, models so far, say) -> parameters; `say` hears how far it is."""
    flags, train = of.flags, of.texts.train
    sizes = [len(windows.inputs) for windows in train]
    together = Windows(
        *(np.concatenate(columns) for columns in zip(*train, strict=True))
    )
    data = jax.tree.map(jnp.asarray, together)

    def transformation(lr) -> optax.GradientTransformation:
        adamw = optax.adamw(lr, b2=0.99, weight_decay=0.1, mask=tricks.matrices)
        return optax.chain(optax.clip_by_global_norm(1.0), adamw)

    def step(data, state, row):
        params, memory = state
        rows, lr = row
        seen = batch(Windows(*(x[rows] for x in data)))
        loss, grads = jax.value_and_grad(partial(mean, of))(params, seen)
        updates, memory = transformation(lr).update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory), loss

    @jax.jit
    def advance(data, state, rows):
        return jax.lax.scan(partial(step, data), state, rows)[0]

    init = jax.jit(lambda key: of.init(key))
    empty = jax.jit(transformation(0.0).init)

    def run(stage: Stage, seed: int, known: dict[str, PyTree], say) -> PyTree:
        begin = known[stage.begin] if stage.begin else init(jax.random.key(seed))
        place = [other.name for other in stages(flags)].index(stage.name)
        rng = np.random.default_rng([seed, place])
        rows = order(sizes, stage, flags.batch_size, rng)
        rates = np.asarray(schedule(stage)(np.arange(stage.updates)), np.float32)
        state = begin, empty(begin)
        for at in range(0, stage.updates, PART):
            say(f"{stage.name} {at}/{stage.updates}")
            part = slice(at, at + PART)
            state = advance(data, state, (rows[part], rates[part]))
            jax.block_until_ready(state)
        return state[0]

    return run


def schedule(stage: Stage) -> optax.Schedule:
    warmup = max(1, int(WARMUP * stage.updates))
    return optax.warmup_cosine_decay_schedule(
        0.0, stage.lr, warmup, max(stage.updates, warmup + 1), END * stage.lr
    )


def order(
    sizes: Sequence[int], stage: Stage, batch_size: int, rng: np.random.Generator
) -> np.ndarray:
    """i32[updates, batch]: windows of the stage's domains in turn, each domain's in a
    new order every time that it is through."""
    count = stage.updates * batch_size
    which = np.resize(stage.domains, count)
    starts = np.cumsum([0, *sizes])
    rows = np.empty(count, np.int32)
    for d in stage.domains:
        own = which == d
        turns = max(1, math.ceil(own.sum() / sizes[d]))
        through = np.concatenate([rng.permutation(sizes[d]) for _ in range(turns)])
        rows[own] = starts[d] + through[: own.sum()]
    return rows.reshape(stage.updates, batch_size)


class Measure(NamedTuple):
    """Bits per byte of each domain, f64[domains]."""

    test: Callable[[PyTree], np.ndarray]
    valid: Callable[[PyTree], np.ndarray]
    # (base, merged, scales) -> [scales, domains], of base + scale (merged - base)
    line: Callable[[PyTree, PyTree, Sequence[float]], np.ndarray]


def measure(of: Task) -> Measure:
    def windows(parts: list[Windows], wanted: int) -> list[Batch]:
        return [batch(own.some(wanted)) for own in parts]

    def bits(data: list[Batch], params: PyTree) -> Array:
        nats = jnp.stack([mean(of, params, own) for own in data])
        return nats / math.log(2)

    def line(data, base, merged, scales):
        def at(scale):
            return bits(data, merging.wise_ft(base, merged, alpha=scale))

        return jax.lax.map(at, scales)

    test = windows(of.texts.test, of.flags.test)
    valid = windows(of.texts.valid, of.flags.valid)
    bits, line = jax.jit(bits), jax.jit(line)
    return Measure(
        lambda params: np.asarray(bits(test, params), float),
        lambda params: np.asarray(bits(valid, params), float),
        lambda base, merged, scales: np.asarray(
            line(valid, base, merged, jnp.asarray(scales, jnp.float32)), float
        ),
    )
