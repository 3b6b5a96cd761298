"""Metasmoothness: whether two small steps of what training depends on move it alike."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, ScalarLike

from .. import _safe as safe
from .. import _tree as tree
from .._check import above
from .._mask import at_least_f32


def metasmoothness(
    train: Callable[[Any], Any],
    x: PyTree,
    direction: PyTree,
    *,
    h: ScalarLike = 0.1,
) -> Float[Array, ""]:
    """How smoothly a trained model answers a change of x; before trusting its gradient.

    S = sum_i sign(D1_i) sign(D2_i) |d_i| / sum_i |d_i|
    D1 = train(x + h v) - train(x), D2 = train(x + 2 h v) - train(x + h v), d = D1 + D2

    Args:
      train: x -> what training gives, a pytree: trained parameters, or losses. No
        randomness but from keys within.
      x: pytree of what one would differentiate in: example weights, rates.
      direction: v, a pytree like x.
      h: > 0, the step, in units of v. May be traced.
    Returns:
      f32[] in [-1, 1]: 1 if every parameter goes on as it began (a linear answer), or
      none moves, 0 if half of the movement turns back, -1 if all of it does.
    Gradient: of the weights |d| alone; the signs have none.
    Cost: three trainings. A gradient by central differences gives it for nothing
      (`check`).
    Raises: ValueError unless h > 0.
    Source: Engstrom et al., "Optimizing ML Training with Metagradient Descent", 2025,
      arXiv:2503.13751, Definition 2. Differs: none.
    Example:
      >>> def train(rate):  # 4 steps of gradient descent on w^2 / 2, from w = 1
      ...     return (1 - rate) ** 4
      >>> print(metasmoothness(train, 0.5, 1.0), metasmoothness(train, 0.95, 1.0))
      1.0 -1.0
    """
    above("h", h, 0)
    tree.check_alike("direction", direction, x)
    return agreement(*(train(tree.add_scaled(x, n * h, direction)) for n in range(3)))


def agreement(first: PyTree, second: PyTree, third: PyTree) -> Float[Array, ""]:
    """Of what training gives at three points in a row, evenly apart."""
    same, moved = jnp.float32(0), jnp.float32(0)
    for a, b, c in zip(*map(_floats, (first, second, third)), strict=True):
        weight = jnp.abs(c - a)
        same += jnp.sum(jnp.sign(b - a) * jnp.sign(c - b) * weight)
        moved += jnp.sum(weight)
    return jnp.where(moved == 0, 1, safe.divide(same, moved))


def _floats(result: PyTree) -> list[Array]:
    return [at_least_f32(jnp.asarray(x)) for x in tree.floats(result)[0]]
