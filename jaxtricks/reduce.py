"""Reductions: from per-example losses to the scalar that one differentiates.

`mean` is what a loss function returns; `total` returns the sum and the count, so that
accumulating over microbatches or devices stays exact.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from ._batch import AxisName
from ._batch import total as total_over
from ._mask import at_least_f32, blank
from ._safe import divide

__all__ = ["mean", "total"]


def mean(
    x: Float[ArrayLike, "*batch"],
    *,
    weights: Float[ArrayLike, "*batch"] | None = None,
    where: Bool[ArrayLike, "*batch"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, ""]:
    """The weighted mean of what counts; a loss function's last line. Batch-coupled.

    mean = sum_i w_i x_i / sum_i w_i over live i

    Args:
      x: float[*batch], losses.
      weights: float[*batch], any scale; None counts every live example once.
      where: bool[*batch], True counts.
      axis_name: the axis or axes of shard_map or pmap that the batch is split over.
    Returns:
      f32[], 0 if the live weight is 0.
    Gradient: smooth in x and weights; masked entries get 0. Under `axis_name` it is the
      gradient of the whole batch's mean.
    Cost: one pass; two scalars over the network with `axis_name`.
    Raises: ValueError where `weights` or `where` is not of x's shape.
    Source: definition.
    Example:
      >>> x = jnp.array([1.0, 2.0, 6.0])
      >>> mean(x, weights=jnp.array([1.0, 1.0, 2.0]))
      Array(3.75, dtype=float32)
      >>> mean(x, where=jnp.array([True, True, False]))
      Array(1.5, dtype=float32)
    """
    return divide(*total(x, weights=weights, where=where, axis_name=axis_name))


def total(
    x: Float[ArrayLike, "*batch"],
    *,
    weights: Float[ArrayLike, "*batch"] | None = None,
    where: Bool[ArrayLike, "*batch"] | None = None,
    axis_name: AxisName | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The weighted sum and the live weight, to add over microbatches. Batch-coupled.

    total = (sum_i w_i x_i, sum_i w_i) over live i

    Args:
      x: float[*batch], losses.
      weights: float[*batch], any scale; None counts every live example once.
      where: bool[*batch], True counts.
      axis_name: the axis or axes of shard_map or pmap that the batch is split over.
    Returns:
      (f32[], f32[]): add both over the parts, then divide once.
    Gradient: linear in x, bilinear in weights; masked entries get 0.
    Cost: one pass; two scalars over the network with `axis_name`.
    Raises: ValueError where `weights` or `where` is not of x's shape.
    Source: definition.
    Example:
      >>> total(jnp.array([1.0, 2.0, 6.0]), where=jnp.array([True, True, False]))
      (Array(3., dtype=float32), Array(2., dtype=float32))
    """
    x = at_least_f32(x)
    for name, given in (("weights", weights), ("where", where)):
        if given is not None and jnp.shape(given) != x.shape:
            raise ValueError(f"{name}: wanted shape {x.shape}, came {jnp.shape(given)}")
    live = at_least_f32(jnp.ones_like(x) if weights is None else weights)
    x, live = blank(x, where), blank(live, where)
    # Weight 0 drops an infinite loss (0 * inf is NaN); a finite one keeps d/dw = x.
    product = blank(x, (live != 0) | jnp.isfinite(x)) * live
    return total_over(product, axis_name), total_over(live, axis_name)
