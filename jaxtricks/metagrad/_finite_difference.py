"""Central differences: the gradient of what has none, and a judge of the others."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree, ScalarLike

from .. import _tree as tree
from .._check import above
from .._mask import at_least_f32


def finite_difference(
    fun: Callable[[PyTree], Float[Array, ""]],
    x: PyTree,
    *,
    eps: ScalarLike | None = None,
) -> PyTree:
    """The gradient by central differences, for a function that has none, or to check.

    g_i = (f(x + h e_i) - f(x - h e_i)) / 2h

    Args:
      fun: x -> f[], traceable; it needs no derivative (while loops, callbacks).
      x: pytree; leaves that are no floats are left alone.
      eps: h > 0, the same for all. Default: cbrt(machine epsilon) max(1, |x_i|), which
        balances rounding and curvature.
    Returns:
      Gradients, a pytree like x; leaves that are no floats come back as they are.
    Gradient: of the differences themselves, fun's at the points looked at.
    Cost: two calls a number, one after another; the memory of one.
    Raises: ValueError for eps <= 0 and for a fun whose result is no scalar.
    Source: definition.
    Example:
      >>> finite_difference(lambda x: jnp.sum(x**2), jnp.array([1.0, 2.0]))
      Array([2., 4.], dtype=float32)
    """
    above("eps", eps, 0)
    leaves, structure = jax.tree.flatten(x)
    floats = [i for i, leaf in enumerate(leaves) if tree.is_float(leaf)]
    if not floats:
        return x
    flat, unravel = ravel_pytree([at_least_f32(leaves[i]) for i in floats])

    def at(flat):
        parts = dict(zip(floats, unravel(flat), strict=True))
        whole = [
            parts[i].astype(jnp.result_type(leaf)) if i in parts else leaf
            for i, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(structure, whole)

    tree.check_scalar("fun", jax.eval_shape(lambda flat: fun(at(flat)), flat))
    machine = [
        jnp.full(
            jnp.size(leaves[i]), jnp.cbrt(jnp.finfo(jnp.result_type(leaves[i])).eps)
        )
        for i in floats
    ]
    size = lax.stop_gradient(jnp.maximum(1, jnp.abs(flat)))
    step = jnp.concatenate(machine).astype(flat.dtype) * size if eps is None else eps
    step = jnp.broadcast_to(jnp.asarray(step, flat.dtype), flat.shape)

    def slope(i):
        up, down = at(flat.at[i].add(step[i])), at(flat.at[i].add(-step[i]))
        width = lax.stop_gradient(_wide(up, floats) - _wide(down, floats))[i]
        return (fun(up) - fun(down)) / width  # 2h as the dtypes rounded it

    return at(lax.map(slope, jnp.arange(flat.size)).astype(flat.dtype))


def _wide(x, floats):
    leaves = jax.tree.leaves(x)
    return ravel_pytree([at_least_f32(leaves[i]) for i in floats])[0]
