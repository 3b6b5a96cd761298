"""Which tasks to meta-learn from, and when to stop differentiating twice.

Sizes grow by a curriculum, kinds are drawn by the softmax of their gaps to a reference,
and MAML becomes first order at an epoch.

Source: Zhou et al., "Towards Omni-generalizable Neural Methods for Vehicle Routing
Problems", 2023, arXiv:2305.19587. Differs: regressions in place of routes, a task's
loss over its least loss in place of a solver's gap; no bootstrap target.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, ScalarLike

from jaxtricks import metagrad


def curriculum(
    epoch: ScalarLike,
    *,
    low: int = 50,
    high: int = 200,
    ramp: int = 100,
    every: int = 5,
) -> Array:
    """An epoch's size of tasks: low + min(epoch / ramp, 1) (high - low), rounded."""
    size = low + jnp.minimum(epoch / ramp, 1.0) * (high - low)
    return (every * jnp.round(size / every)).astype(jnp.int32)


def task_weights(gaps: Float[Array, " kinds"]) -> Float[Array, " kinds"]:
    """How often each kind is drawn: the softmax of relative gaps."""
    return jax.nn.softmax(gaps)


def run(quick: bool = False) -> dict[str, float]:
    """The worst kind's loss after one step: drawn by gaps, and alike; both switch."""
    rounds, switch = (200, 150) if quick else (2000, 1500)
    stiff = jnp.array([0.2, 0.5, 1.0, 2.0])  # curvature of each kind of task
    centres = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)

    def loss(w, task):
        curvature, centre, size = task
        return curvature * jnp.sum((w - centre) ** 2) / 2 + 0 * size

    def gaps(w):
        after = partial(metagrad.inner_adapt, loss, w, rate=0.4)
        return jax.vmap(lambda t: loss(after(t), t))((stiff, centres, jnp.zeros(4)))

    def learn(by_gap):
        tx = optax.adam(0.02)

        def step(carry, xs):
            w, state, weights = carry
            i, key = xs
            kinds = jax.random.categorical(key, jnp.log(weights), shape=(3,))
            sizes = jnp.full(3, curriculum(i), jnp.float32)
            tasks = stiff[kinds], centres[kinds], sizes
            f = partial(metagrad.maml, loss, tasks=(tasks, tasks), rate=0.4)
            grads = jax.grad(lambda w: f(w, first_order=i >= switch))(w)
            updates, state = tx.update(grads, state)
            w = optax.apply_updates(w, updates)
            again = (i % 10 == 0) & by_gap
            found = gaps(w)
            weights = jnp.where(again, task_weights(found / jnp.mean(found)), weights)
            return (w, state, weights), jnp.sum(weights)

        keys = jax.random.split(jax.random.key(0), rounds)
        first = jnp.zeros(3), tx.init(jnp.zeros(3)), jnp.full(4, 0.25)
        (w, _, weights), _ = jax.lax.scan(step, first, (jnp.arange(rounds), keys))
        return jnp.max(gaps(w)), jnp.max(weights)

    worst, weights = jax.jit(jax.vmap(learn))(jnp.array([True, False]))
    return {
        "worst alike": float(worst[1]),
        "worst by gaps": float(worst[0]),
        "largest weight": float(weights[0]),
    }
