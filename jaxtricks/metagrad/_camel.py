"""CAMEL: models that are affine in a few numbers of each environment."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, ScalarLike

from .. import _safe as safe
from .._check import at_least, of_shape
from .._mask import at_least_f32, blank


def camel_head(
    features: Float[ArrayLike, "*batch r"],
    code: Float[ArrayLike, "*tasks r"],
    offset: Float[ArrayLike, "*batch"] | None = None,
) -> Float[Array, "..."]:
    """An environment's model: shared features, weighed by a few numbers of its own.

    f(x; t) = c(x) + <w_t, v(x)>

    Trained by plain descent on the squared error in v's and c's parameters and all w_t
    at once; no inner loop. A new environment needs `camel_adapt` alone.

    Args:
      features: float[*batch, r], v(x); of several outputs, [*batch, out, r].
      code: float[r], w_t; or one an example, of the leading axes of features.
      offset: float[*batch], c(x); 0 by default.
    Returns:
      f32[*batch].
    Gradient: bilinear.
    Cost: r products an output.
    Raises: ValueError for an offset of another shape.
    Source: Blanke and Lelarge, "Interpretable Meta-Learning of Physical Systems", 2023,
      arXiv:2312.00477. Differs: none.
    Example:
      >>> camel_head(jnp.array([[1.0, 2.0]]), jnp.array([3.0, 4.0]), jnp.array([0.5]))
      Array([11.5], dtype=float32)
    """
    features, code = at_least_f32(features), at_least_f32(code)
    code = code.reshape(
        *code.shape[:-1], *[1] * (features.ndim - code.ndim), code.shape[-1]
    )
    value = jnp.sum(features * jnp.broadcast_to(code, features.shape), axis=-1)
    if offset is None:
        return value
    of_shape(value.shape, offset=offset)
    return value + at_least_f32(offset)


def camel_adapt(
    features: Float[ArrayLike, "*batch r"],
    targets: Float[ArrayLike, "*batch"],
    offset: Float[ArrayLike, "*batch"] | None = None,
    *,
    ridge: ScalarLike = 0.0,
    where: Bool[ArrayLike, "*batch"] | None = None,
) -> Float[Array, " r"]:
    """A new environment's numbers from a few observations: least squares.

    w = argmin sum (y - c(x) - <w, v(x)>)^2 + ridge |w|^2

    Args:
      features: float[*batch, r], v(x) of the shared network.
      targets: float[*batch].
      offset: float[*batch], c(x); 0 by default.
      ridge: >= 0; 0, as in the paper, needs r independent rows.
      where: bool[*batch], which count.
    Returns:
      f32[r]; the physical parameters up to a linear map, where the truth is affine.
    Gradient: smooth in all, where the solution is unique.
    Cost: a QR decomposition of [batch + r, r].
    Raises: ValueError for shapes that disagree or ridge < 0.
    Source: Blanke and Lelarge, "Interpretable Meta-Learning of Physical Systems", 2023,
      arXiv:2312.00477. Differs: the ridge.
    Example:
      >>> v = jnp.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
      >>> camel_adapt(v, jnp.array([3.0, 8.0, 7.0])).tolist()
      [3.0, 4.0]
    """
    features, targets = at_least_f32(features), at_least_f32(targets)
    at_least("ridge", ridge, 0)
    of_shape(features.shape[:-1], targets=targets)
    if offset is not None:
        of_shape(targets.shape, offset=offset)
        targets = targets - at_least_f32(offset)
    r = features.shape[-1]
    rows = blank(features, where).reshape(-1, r)
    sides = blank(targets, where).reshape(-1)
    pull = safe.sqrt(jnp.asarray(ridge, rows.dtype)) * jnp.eye(r, dtype=rows.dtype)
    q, upper = jnp.linalg.qr(jnp.concatenate([rows, pull]))
    sides = jnp.concatenate([sides, jnp.zeros(r, sides.dtype)])
    return jnp.linalg.solve(upper, q.T @ sides)
