"""How long a solver takes, as something to differentiate."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, ScalarLike

from .._check import above
from .._mask import at_least_f32, blank


def iteration_count(
    residuals: Float[ArrayLike, "*batch steps"],
    *,
    tolerance: ScalarLike,
    sharpness: ScalarLike,
    where: Bool[ArrayLike, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """How many iterations a solver needs, smoothly: what its parameters should shorten.

    count = sum_{k < K} sigmoid(sharpness (r_k - tolerance)),   K = min {k: r_k <= tol.}

    The residual after a fixed number of steps may fall while the count to a tolerance
    grows; this falls with the count. Run the solver a bounded number of steps by
    `scan`, and draw the tolerance anew from the range of interest.

    Args:
      residuals: float[*batch, steps], r_k after k iterations, k = 0, 1, ...; errors or
        their logarithms, whichever the tolerance is of.
      tolerance: what ends the solver.
      sharpness: > 0; the count is exact in the limit.
      where: bool[*batch], which runs count.
    Returns:
      f32[*batch], in [0, steps]; a run that never ends counts all its steps;
      0 where masked.
    Gradient: through the sigmoids; K is held.
    Cost: none to speak of.
    Raises: ValueError for sharpness <= 0.
    Source: Arisaka and Li, "Principled Acceleration of Iterative Numerical Methods
      Using Machine Learning", 2022, arXiv:2206.08594. Differs: the paper's constant
      in the sigmoid, and whether it takes logarithms, could not be read.
    Example:
      >>> r = jnp.array([8.0, 4.0, 2.0, 1.0, 0.5])
      >>> print(iteration_count(r, tolerance=1.5, sharpness=100.0))  # 8, 4 and 2
      3.
    """
    above("sharpness", sharpness, 0)
    residuals = blank(at_least_f32(residuals), where)
    ended = jnp.cumsum(residuals <= tolerance, axis=-1) > 0
    smooth = jax.nn.sigmoid(sharpness * (residuals - tolerance))
    return blank(jnp.sum(jnp.where(ended, 0, smooth), axis=-1), where)
