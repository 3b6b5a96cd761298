"""A representation learnt so that a linear layer on it fits a task in a few steps.

lambda: the representation's weights; w_T: the last layer after T steps from 0 on a
task's support; min over lambda of the queries' loss.

Source: Franceschi et al., "Bilevel Programming for Hyperparameter Optimization and
Meta-Learning", 2018, arXiv:1806.04910, hyper-representation. Differs: sine waves.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key, PyTree

from jaxtricks import metagrad

from .procedural_biases import draw

WIDTH = 16


def features(representation: PyTree, x: Array) -> Array:
    hidden = jnp.tanh(x[:, None] @ representation["in"] + representation["bias"][None])
    return jnp.tanh(hidden @ representation["out"])


def loss(w: Array, representation: PyTree, batch: tuple[Array, Array]) -> Array:
    x, y = batch
    return jnp.mean((features(representation, x) @ w - y) ** 2)


def inner(representation: PyTree, support, *, rate=0.1, steps=8) -> Array:
    """w_T of one task: `metagrad.inner_adapt` on the last layer alone."""
    fn = partial(_of_last, representation)
    return metagrad.inner_adapt(fn, jnp.zeros(WIDTH), support, rate=rate, steps=steps)


def _of_last(representation: PyTree, w: Array, batch) -> Array:
    return loss(w, representation, batch)


def outer(representation: PyTree, tasks) -> Array:
    """E(w_T(lambda), lambda), the mean over tasks."""

    def one(support, query):
        return loss(inner(representation, support), representation, query)

    return jnp.mean(jax.vmap(one)(*tasks))


def start(key: Key[Array, ""]) -> PyTree:
    keys = jax.random.split(key, 3)
    return {
        "in": jax.random.normal(keys[0], (1, WIDTH)),
        "bias": jax.random.normal(keys[1], (WIDTH,)),
        "out": jax.random.normal(keys[2], (WIDTH, WIDTH)) / WIDTH**0.5,
    }


def run(quick: bool = False) -> dict[str, float]:
    """The query loss on new tasks: a random representation, and the learned one."""
    rounds, tx = 300 if quick else 4000, optax.adam(3e-3)

    @jax.jit
    def learn(representation):
        def step(carry, key):
            representation, state = carry
            grads = jax.grad(outer)(representation, draw(key, 16))
            updates, state = tx.update(grads, state)
            return (optax.apply_updates(representation, updates), state), None

        keys = jax.random.split(jax.random.key(1), rounds)
        init = representation, tx.init(representation)
        return jax.lax.scan(step, init, keys)[0][0]

    first, tasks = start(jax.random.key(0)), draw(jax.random.key(2), 256)
    f = jax.jit(outer)
    return {"random": float(f(first, tasks)), "learnt": float(f(learn(first), tasks))}
