"""At which rates: a schedule learned by meta-gradients, and a grid that costs as much.

What is counted is evaluations of a training step. A meta-gradient runs every step once
forward and once again on its way back (`metagrad.plan` says so), and pulls it back,
which counts as two more.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxtricks import metagrad

from ..small import smooth
from .config import RATES, SHAPES, Mgd
from .data import Lane, Split
from .selection import key
from .training import ACTIVATION, mean_loss, order, start, train, walk

POLICY, PULL = "step", 2


def problem(flags: Mgd, lane: Lane, rate: optax.Schedule):
    """(tx, params, loss, rows) of a training with this schedule."""

    def loss(params, rows, t):
        del t
        images, labels = lane.images[rows], lane.labels[rows]
        return jnp.mean(smooth.each(params, images, labels, ACTIVATION))

    rows = order(key(lane, 7), len(lane.labels), flags.tune_updates, flags.batch_size)
    params = start(key(lane, 8), lane.images, flags.width)
    return optax.sgd(rate, momentum=0.9), params, loss, rows


def schedule(flags: Mgd, logs: Float[Array, " points"]) -> optax.Schedule:
    return metagrad.key_points(jnp.exp(logs), total_steps=flags.tune_updates)


def outcome(flags: Mgd, split: Split, lane: Lane, rate: optax.Schedule) -> dict:
    params = train(*problem(flags, lane, rate))
    return {
        "valid": mean_loss(params, split.valid),
        "test": mean_loss(params, split.test),
        "accuracy": smooth.accuracy(params, *split.test, ACTIVATION),
    }


def tuned(flags: Mgd, split: Split, lane: Lane) -> dict[str, Array]:
    """Every round's outcome and rates, from a constant in the middle of the grid's."""

    def valid(logs):
        found = outcome(flags, split, lane, schedule(flags, logs))
        return found["valid"], found

    def round_(logs, n):
        (_, found), grads = jax.value_and_grad(valid, has_aux=True)(logs)
        found["rates"] = jnp.exp(logs)
        rate = flags.tune_rate * 0.85**n
        low, high = np.log(RATES[0]), np.log(RATES[-1])
        return metagrad.mgd(logs, grads, rate=rate, low=low, high=high), found

    middle = 0.5 * (np.log(RATES[0]) + np.log(RATES[-1]))
    first = jnp.full(flags.points, middle, jnp.float32)
    rounds = jnp.arange(flags.tune_rounds, dtype=jnp.float32)
    return jax.lax.scan(round_, first, rounds)[1]


def shape(name: str, total: int) -> optax.Schedule:
    """The rate over its peak."""
    if name == "constant":
        return optax.constant_schedule(1.0)
    if name == "linear":
        return optax.linear_schedule(1.0, 0.0, total)
    if name == "cosine":
        return optax.cosine_decay_schedule(1.0, total)
    if name == "warmup cosine":
        return optax.warmup_cosine_decay_schedule(0.0, 1.0, total // 10, total)
    return optax.piecewise_constant_schedule(1.0, {total // 2: 0.1})


def rates(flags: Mgd) -> Float[Array, "tried updates"]:
    """The grid: at every step of every schedule."""
    steps = jnp.arange(flags.tune_updates)
    shapes = [jax.vmap(shape(name, flags.tune_updates))(steps) for name in SHAPES]
    table = jnp.stack(shapes)[:, None] * jnp.asarray(RATES)[None, :, None]
    return table.reshape(-1, flags.tune_updates)


def grid(flags: Mgd, split: Split, lane: Lane) -> dict[str, Array]:
    """[rates x shapes] outcomes, in another order for every seed; as many of them as
    the rounds of `tuned` cost."""
    table = rates(flags)
    mixed = jax.random.permutation(key(lane, 9), len(table))
    found = jax.lax.map(
        lambda row: outcome(flags, split, lane, lambda step: row[step]), table[mixed]
    )
    return found | {"place": mixed}


def costs(flags: Mgd, lane: Lane) -> tuple[int, int]:
    """Step evaluations of a training, and of one with its meta-gradient. A lane by
    itself."""
    pieces = problem(flags, lane, optax.constant_schedule(0.1))
    step, init, xs = walk(*pieces)
    planned = metagrad.plan(step, init, xs)
    (ran,) = {c.evaluations for c in planned.costs if c.policy == POLICY}
    return flags.tune_updates, ran + PULL * flags.tune_updates


def equal(flags: Mgd, lane: Lane) -> int:
    """How many trainings of the grid cost what the rounds do, at most all of them."""
    one, round_ = costs(flags, lane)
    return min(len(RATES) * len(SHAPES), flags.tune_rounds * round_ // one)


def curve(valid: np.ndarray) -> np.ndarray:
    """[seeds, tried]: the least validation loss so far; what diverged is none."""
    clean = np.where(np.isfinite(valid), valid, np.inf)
    return np.minimum.accumulate(clean, axis=1)


def best(found: dict[str, np.ndarray], tried: int) -> dict[str, list[float]]:
    """Of each seed, what is least on the validation images among the first tried."""
    valid = np.where(np.isfinite(found["valid"]), found["valid"], np.inf)[:, :tried]
    at = np.argmin(valid, axis=1)
    rows = np.arange(len(at))
    return {k: found[k][rows, at].tolist() for k in ("valid", "test", "accuracy")}


def programs(flags: Mgd, split: Split):
    """(tuned, grid), compiled for all seeds at once."""
    return tuple(jax.jit(jax.vmap(partial(f, flags, split))) for f in (tuned, grid))
