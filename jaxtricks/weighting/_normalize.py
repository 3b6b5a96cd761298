"""Bring weights of any scale to a live mean of 1."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from .._batch import AxisName, total
from .._mask import at_least_f32, blank
from .._safe import divide


def normalize(
    weights: Float[ArrayLike, "*batch"],
    *,
    where: Bool[ArrayLike, "*batch"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch"]:
    """Weights with a live mean of 1: mean(w l) is on the scale of l. Batch-coupled.

    w_i <- w_i / mean_j w_j over live j

    Args:
      weights: float[*batch], any scale, the sum not negative.
      where: bool[*batch], True counts.
      axis_name: the axis or axes of shard_map or pmap that the batch is split over.
    Returns:
      f32[*batch], live mean 1 over the whole batch; all 0 if the live sum is 0. 0 where
      masked.
    Gradient: smooth where the live sum is not 0, and 0 there; nothing is stopped.
    Cost: one pass; two scalars over the network with `axis_name`.
    Raises: ValueError for a `where` of another shape.
    Source: definition.
    Example:
      >>> w = jnp.array([1.0, 2.0, 5.0])
      >>> print(*normalize(w, where=jnp.array([True, True, False])))
      0.6667 1.3333 0.0
    """
    weights = at_least_f32(weights)
    where = jnp.ones_like(weights, dtype=bool) if where is None else jnp.asarray(where)
    if where.shape != weights.shape:
        raise ValueError(f"where: wanted shape {weights.shape}, came {where.shape}")
    weights = blank(weights, where)
    count = total(where.astype(weights.dtype), axis_name)
    return divide(weights, divide(total(weights, axis_name), count))
