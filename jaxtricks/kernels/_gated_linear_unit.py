"""The gated linear unit without an activation: the product alone is what bends."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from .._mask import blank
from ._blocks import computing_dtype


def simple_glu(
    hidden: Float[ArrayLike, "*batch features"],
    value: Float[ArrayLike, "features inner"],
    gate: Float[ArrayLike, "features inner"],
    out: Float[ArrayLike, "inner outputs"],
    *,
    where: Bool[ArrayLike, "*batch"] | None = None,
) -> Float[Array, "*batch outputs"]:
    """Gated linear unit with no activation (SGLU); a cheaper feed-forward layer.

    simple_glu(x) = ((x value) * (x gate)) out

    Args:
      hidden: float[*batch, features].
      value: float[features, inner].
      gate: float[features, inner]; it and value may be swapped.
      out: float[inner, outputs].
      where: bool[*batch], True counts.
    Returns:
      [*batch, outputs] in hidden's dtype, sums in f32; 0 at hidden 0, where it has no
      slope either, and where masked.
    Gradient: a polynomial of degree 2 in hidden, 1 in each weight; any order.
    Cost: three products; a gradient stores both halves, [*batch, inner] each.
    Raises: ValueError for a where that does not fit.
    Source: Qin et al., "Scaling TransNormer to 175 Billion Parameters", 2023,
      arXiv:2307.14995, SGLU. Differs: none.
    Example:
      >>> eye = jnp.eye(2)
      >>> simple_glu(jnp.array([3.0, -2.0]), eye, eye, eye)
      Array([9., 4.], dtype=float32)
    """
    hidden, *weights = map(jnp.asarray, (hidden, value, gate, out))
    dtype = computing_dtype(hidden, *weights)
    value, gate, out = (w.astype(dtype) for w in weights)
    x = blank(hidden, where).astype(dtype)
    return blank((((x @ value) * (x @ gate)) @ out).astype(hidden.dtype), where)
