"""The compiled programs of `replay`: a few steps forward, the same steps backward."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, PyTree

from .. import _tree as tree
from .._checksum import checksum


class Programs(NamedTuple):
    """`batches` are ([n] indices, [n, ...] stacked); `ways` is d objective / d state in
    the state's float leaves, `grad` the sum so far in those of wrt: tuples both.
    """

    forward: Callable  # (state, batches, wrt) -> (state, nans: bool[n], checksum)
    finish: Callable  # (state, wrt) -> (value, ways, grad)
    backward: Callable  # (state, batches, wrt, ways, grad) -> (ways, grad, nans)


@lru_cache(maxsize=4)
def programs(step: Callable, objective: Callable, places: Any) -> Programs:
    """Compiled once for a step and an objective.

    places: the shardings of the state's leaves, of its float leaves, of wrt's and of
    what lies whole, which the results keep: what is replayed must not wander.
    """
    all_places, float_places, wrt_places, whole = places

    def follow(state, wrt, at):
        return step(state, at[1], wrt)[0]

    def forward(state, batches, wrt):
        def one(state, at):
            state = follow(state, wrt, at)
            return state, has_nan(state)

        state, nans = lax.scan(one, state, batches)
        return tuple(jax.tree.leaves(state)), nans, checksum(state)

    def finish(state, wrt):
        floats, join = tree.floats(state)

        def of(floats, wrt):
            return objective(join(floats), wrt)

        value, (ways, grad) = jax.value_and_grad(of, argnums=(0, 1))(floats, wrt)
        return value, tuple(ways), tuple(jax.tree.leaves(tree.promote(grad)))

    def backward(state, batches, wrt, ways, grad):
        if batches[0].shape[0] == 1:
            states = jax.tree.map(lambda x: x[None], state)
        else:
            _, states = lax.scan(
                lambda state, at: (follow(state, wrt, at), state), state, batches
            )

        def one(carry, where):
            (ways, grad), (state, at) = carry, where
            floats, join = tree.floats(state)

            def of(floats, wrt):
                return tuple(tree.floats(follow(join(floats), wrt, at))[0])

            ways, more = jax.vjp(of, floats, wrt)[1](ways)
            more = jax.tree.leaves(more)
            grad = tuple(g + m.astype(g.dtype) for g, m in zip(grad, more, strict=True))
            return (tuple(ways), grad), has_nan((ways, more))

        (ways, grad), nans = lax.scan(
            one, (ways, grad), (states, batches), reverse=True
        )
        return ways, grad, nans

    return Programs(
        jax.jit(forward, out_shardings=(all_places, whole, whole)),
        jax.jit(finish, out_shardings=(whole, float_places, wrt_places)),
        jax.jit(backward, out_shardings=(float_places, wrt_places, whole)),
    )


def has_nan(values: PyTree) -> Bool[Array, ""]:
    found = [jnp.any(jnp.isnan(x)) for x in jax.tree.leaves(values) if tree.is_float(x)]
    return jnp.any(jnp.stack(found)) if found else jnp.zeros((), bool)
