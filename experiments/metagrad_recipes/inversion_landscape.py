"""A map under which descent inverts a function fast, learnt along descent's own paths.

Descent on z' of |F(M(z')) - y|^2 with M held; what it visits is kept, and M learns to
lower the loss everywhere there, with nothing unrolled.

Source: Liu et al., "Landscape Learning for Neural Network Inversion", 2022,
arXiv:2206.09027. Differs: a badly conditioned linear F and a linear M; all visited
points count alike, and all of the last round are kept.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

DIMENSION = 6


def visited(loss: Callable, z: Array, *, rate: float, steps: int) -> Array:
    """The points of descent on z', the start first: [steps + 1, d]."""

    def step(z, _):
        return z - rate * jax.grad(loss)(z), z

    last, rest = jax.lax.scan(step, z, length=steps)
    return jnp.concatenate([rest, last[None]])


def run(quick: bool = False) -> dict[str, float]:
    """The loss after descent as it is, and under the learned map."""
    forward = jnp.asarray(np.diag(np.geomspace(0.1, 1.0, DIMENSION)), jnp.float32)
    rounds = 100 if quick else 1000

    def loss(z, matrix, y):
        return jnp.sum((forward @ (matrix @ z) - y) ** 2) / 2

    def paths(matrix, targets):
        def one(y):
            zero = jnp.zeros(DIMENSION)
            return visited(lambda z: loss(z, matrix, y), zero, rate=0.5, steps=10)

        return jax.vmap(one)(targets)

    def along(matrix, seen, targets):
        each = jax.vmap(jax.vmap(loss, (0, None, None)), (0, None, 0))
        return jnp.mean(each(seen, matrix, targets))

    def draw(key):
        return jax.random.normal(key, (16, DIMENSION)) @ forward

    tx = optax.adam(0.02)

    @jax.jit
    def learn():
        def round_(carry, key):
            matrix, state = carry
            targets = draw(key)
            seen = jax.lax.stop_gradient(paths(matrix, targets))
            updates, state = tx.update(jax.grad(along)(matrix, seen, targets), state)
            return (optax.apply_updates(matrix, updates), state), None

        first = jnp.eye(DIMENSION)
        keys = jax.random.split(jax.random.key(0), rounds)
        return jax.lax.scan(round_, (first, tx.init(first)), keys)[0][0]

    @jax.jit
    def reached(matrix):
        targets = draw(jax.random.key(1))
        ends = paths(matrix, targets)[:, -1:]
        return along(matrix, ends, targets)

    return {
        "plain": float(reached(jnp.eye(DIMENSION))),
        "learnt": float(reached(learn())),
    }
