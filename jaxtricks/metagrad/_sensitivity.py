"""What a trained function's value owes to each of its inputs, by derivatives."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from .._batch import whole
from .._check import at_least
from .._mask import at_least_f32, blank


def input_derivative_sensitivity(
    fun: Callable[[Array], Float[Array, ""]],
    x: Float[ArrayLike, "n features"],
    *,
    order: int = 1,
    signed: bool = False,
    where: Bool[ArrayLike, " n"] | None = None,
) -> Float[Array, " features"]:
    """How much a scalar function bends along each input; to rank a network's features.

    s_k(j) = mean_i |d^k F(x_i) / dx_j^k|

    Args:
      fun: x_i f[features] -> f[], a network's loss or output; smooth (tanh, not ReLU)
        for order > 1.
      x: float[n, features].
      order: k >= 1; the source looks at 1, 2 and 3.
      signed: the mean of the derivatives themselves.
      where: bool[n], True counts.
    Returns:
      f32[features]; 0 for an input that fun does not read.
    Gradient: of the absolute value, whose kink is at 0.
    Cost: features x k forward passes, nested.
    Raises: ValueError for order < 1, or an x that is no matrix.
    Source: Faroz, "Sensitivity Analysis On Loss Landscape", 2024, arXiv:2403.01128.
      Differs: the network and its loss are the caller's.
    Example:
      >>> fun = lambda x: 2 * x[0] ** 2 - 5 * x[1] + 0 * x[2]
      >>> x = jnp.array([[1.0, 0.0, 0.0], [-3.0, 1.0, 0.0]])
      >>> print(input_derivative_sensitivity(fun, x))
      [8. 5. 0.]
      >>> print(input_derivative_sensitivity(fun, x, order=2))
      [4. 0. 0.]
    """
    at_least("order", order, 1)
    x = whole(blank(at_least_f32(x), where))
    if x.ndim != 2:
        raise ValueError(f"x: wanted f[n, features], came shape {x.shape}")
    units = jnp.eye(x.shape[1], dtype=x.dtype)

    def along(unit, point):
        def derivative(f):
            return lambda p: jax.jvp(f, (p,), (unit,))[1]

        f = fun
        for _ in range(order):
            f = derivative(f)
        return f(point)

    each = jax.vmap(lambda point: jax.vmap(along, (0, None))(units, point))(x)
    where = None if where is None else whole(where)
    each = blank(each if signed else jnp.abs(each), where)
    live = len(x) if where is None else jnp.maximum(jnp.sum(where), 1)
    return jnp.sum(each, axis=0) / jnp.asarray(live, each.dtype)
