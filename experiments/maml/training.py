"""Initialisations are learnt, all seeds at once, and adapted to tasks never seen."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, PyTree, ScalarLike

from jaxtricks import metagrad

from .config import Maml
from .problems import Problem

PIECE = 500  # iterations between looks at whether to stop
# Of training's rate: an initialisation is adapted to new tasks at the best of these.
TRIED = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
CHOSEN = 5  # steps after which it is the best


def learn(
    method: str, of: Problem, flags: Maml, seeds: Array, show: Callable = print
) -> PyTree:
    """Initialisations, leaves [seeds, ...]; "random" has the first ones."""
    joint = method == "joint"
    keys = jax.vmap(jax.random.key)(seeds)
    params = jax.vmap(of.joint_init if joint else of.init)(keys)
    if method == "random":
        return params
    tx = optax.adam(optax.cosine_decay_schedule(flags.meta_rate, of.iterations))
    settings = {"rate": of.rate, "steps": of.steps, "policy": "none"}
    settings["first_order"] = method == "fomaml"

    def loss(params, key):
        if joint:
            return of.joint_loss(params, key)
        keys = jax.random.split(key, flags.meta_batch)
        tasks = jax.vmap(partial(of.draw, kind="training"))(keys)
        return metagrad.maml(of.loss, params, tasks, **settings)

    def step(i, carry, key):
        params, state = carry
        grads = jax.grad(loss)(params, jax.random.fold_in(key, i))
        updates, state = tx.update(grads, state)
        return optax.apply_updates(params, updates), state

    @jax.jit
    @partial(jax.vmap, in_axes=(0, 0, None, None))
    def piece(carry, key, first, last):
        return jax.lax.fori_loop(first, last, partial(step, key=key), carry)

    carry = params, jax.vmap(tx.init)(params)
    for first in range(0, of.iterations, PIECE):
        last = min(first + PIECE, of.iterations)
        carry = jax.block_until_ready(piece(carry, keys, first, last))
        show(f"iteration {last} of {of.iterations}")
    return jax.vmap(of.joint_end)(carry[0]) if joint else carry[0]


def path(
    of: Problem, params: PyTree, support: PyTree, *, rate: ScalarLike, steps: int
) -> PyTree:
    """The parameters after 0, 1, ... steps on one task, leaves [steps + 1, ...]."""

    def step(params, _):
        after = metagrad.inner_adapt(of.loss, params, support, rate=rate)
        return after, after

    _, rest = jax.lax.scan(step, params, length=steps)
    return jax.tree.map(lambda p, q: jnp.concatenate([p[None], q]), params, rest)


def drawn(flags: Maml, kind: str) -> Key[Array, " tasks"]:
    """Keys of tasks that no seed was trained on, the same for all initialisations."""
    place = 2**31 + ("choice", "new").index(kind)
    key = jax.random.fold_in(jax.random.key(flags.seed), place)
    return jax.random.split(key, flags.tasks)


def curves(
    of: Problem, flags: Maml, params: PyTree, *, rate: ScalarLike, steps: int, kind: str
) -> Float[Array, "tasks steps"]:
    """What is measured of tasks after 0, 1, ... steps of adaptation to each."""

    def one(key):
        support, query = of.draw(key, kind=kind)
        ends = path(of, params, support, rate=rate, steps=steps)
        return jax.vmap(of.measure, (0, None))(ends, query)

    return jax.lax.map(one, drawn(flags, kind), batch_size=min(100, flags.tasks))


class Measured(NamedTuple):
    """Compiled once for all initialisations of one problem, of all seeds at once."""

    tried: Callable[[PyTree, Array], Array]  # by rate, after CHOSEN steps
    curves: Callable[[PyTree, Array], Array]  # [seeds, tasks, steps + 1], of new tasks
    path: Callable[..., PyTree]  # (params, support, rate), of one task


def measured(of: Problem, flags: Maml) -> Measured:
    def tried(starts, rates):
        one = partial(curves, of, flags, steps=CHOSEN, kind="choice")

        def mean(rate):
            return jnp.mean(jax.vmap(lambda p: one(p, rate=rate))(starts)[..., CHOSEN])

        return jax.lax.map(mean, rates)

    def new(starts, rate):
        one = partial(curves, of, flags, steps=flags.test_steps, kind="new")
        return jax.vmap(lambda p: one(p, rate=rate))(starts)

    def ends(params, support, rate):
        return path(of, params, support, rate=rate, steps=flags.test_steps)

    return Measured(jax.jit(tried), jax.jit(new), jax.jit(ends))


def run(
    method: str, of: Problem, flags: Maml, measure: Measured, show: Callable = print
) -> dict:
    """The rate, lists [tasks][steps + 1], the mean over seeds, and [seeds][steps + 1],
    the mean over tasks; and how one wave is fitted."""
    seeds = flags.seed + jnp.arange(flags.seeds)
    starts = learn(method, of, flags, seeds, show)
    rates = jnp.array([of.rate * part for part in TRIED])
    tried = np.asarray(measure.tried(starts, rates), np.float64)
    cost = np.where(np.isfinite(tried), -tried if of.higher else tried, np.inf)
    best = int(cost.argmin())
    found = np.asarray(measure.curves(starts, rates[best]), np.float64)
    kept = {"rate": of.rate * TRIED[best], "curves": found.mean(0).tolist()}
    kept |= {"seeds": found.mean(1).tolist()}
    first = jax.tree.map(lambda p: p[0], starts)
    fits = {} if of.higher else fitted(of, first, flags, rates[best], measure)
    return kept | fits


def fitted(
    of: Problem, params: PyTree, flags: Maml, rate: Array, measure: Measured
) -> dict:
    """One wave: the truth, the points shown, and the fit after some steps."""
    support, query = of.draw(drawn(flags, "new")[0], kind="new")
    order = jnp.argsort(query[0][:, 0])
    x, y = query[0][order], query[1][order]
    lines = jax.vmap(of.apply, (0, None))(measure.path(params, support, rate), x)
    chosen = {str(k): lines[k] for k in (0, 1, flags.test_steps)}
    shown = {"x": x, "y": y, "support_x": support[0], "support_y": support[1]}
    return {"fit": {k: np.ravel(v).tolist() for k, v in {**shown, **chosen}.items()}}
