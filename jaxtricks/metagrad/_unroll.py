"""Forward-mode hypergradients: derivatives carried along with the training."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import PyTree

from .. import _tree as tree


def unroll(
    step: Callable[[Any, Any, Any], tuple[Any, Any]],
    init: PyTree,
    xs: PyTree,
    wrt: PyTree,
    *,
    length: int | None = None,
) -> tuple[PyTree, PyTree]:
    """Training with its derivative in a few hyperparameters carried along; any length.

    Z_{t+1} = A_t Z_t + B_t,   A_t, B_t the derivatives of step in carry and wrt

    The memory does not grow with T, and it is ready at every step. For few numbers;
    `scan` and `jax.grad` serve many.

    Args:
      step: (carry, x, wrt) -> (carry, y); y is not kept.
      init: carry_0, which does not depend on wrt (Z_0 = 0).
      xs: pytree of arrays [T, ...], or None.
      wrt: pytree of floats, P numbers in all.
      length: T, where xs does not say it.
    Returns:
      (carry_T, Z_T): for each float leaf of the carry a tree like wrt of arrays
      [*leaf, *wrt leaf], as from `jax.jacfwd`; None for other leaves.
    Gradient: exact, any order; reverse mode through it stores T carries and their Z.
    Cost: P + 1 training runs at once, in time and memory; nothing grows with T.
    Raises: ValueError for what is no float in wrt; what `lax.scan` refuses.
    Source: Franceschi et al., "Bilevel Programming for Hyperparameter Optimization and
      Meta-Learning", 2018, arXiv:1806.04910, Forward-HG; Franceschi et al., "Forward
      and Reverse Gradient-Based Hyperparameter Optimization", 2017, arXiv:1703.01785,
      alg. 2. Differs: none.
    Example:
      >>> step = lambda w, _, rate: (w - rate * w, None)
      >>> w, by_rate = unroll(step, 1.0, None, 0.01, length=100)
      >>> print(w, by_rate)  # 0.99^100, -100 * 0.99^99
      0.3660 -36.9730
    """
    tree.check_floats("wrt", wrt)
    flat, unravel = ravel_pytree(wrt)

    def run(flat):
        def plain(carry, x):
            return step(carry, x, unravel(flat))[0], None

        carry, _ = lax.scan(plain, init, xs, length=length)
        leaves = jax.tree.leaves(carry)
        moving = [x for x in leaves if tree.is_float(x)]
        return moving, carry

    def push(tangent):
        _, moved, carry = jax.jvp(run, (flat,), (tangent,), has_aux=True)
        return carry, moved

    basis = jnp.eye(flat.size, dtype=flat.dtype)
    carry, moved = jax.vmap(push, out_axes=(None, -1))(basis)
    moved = iter(moved)

    def columns(leaf):
        if not tree.is_float(leaf):
            return None
        part, start, split = next(moved), 0, []
        for w in jax.tree.leaves(wrt):
            stop = start + jnp.size(w)
            split.append(part[..., start:stop].reshape(*leaf.shape, *jnp.shape(w)))
            start = stop
        return jax.tree.unflatten(jax.tree.structure(wrt), split)

    return carry, jax.tree.map(columns, carry)
