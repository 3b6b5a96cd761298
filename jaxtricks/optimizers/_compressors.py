"""Contractive compressors: what is sent of an array, and how near it stays.

E|C(x) - x|^2 <= (1 - alpha) |x|^2. A compressor returns a dense array with what is not
sent put to zero; the messages of a real network are its nonzero entries.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from .. import _safe as safe
from .._check import at_least, between
from .._mask import at_least_f32


def top_k(x: Float[ArrayLike, "*s"], *, k: int | float) -> Float[Array, "*s"]:
    """The k entries of largest magnitude, the rest zero; the usual biased compressor.

    alpha = k / size; of equal entries the first are kept

    Args:
      x: float[*s].
      k: entries to keep (an int >= 0), or their share in [0, 1], rounded up to an
        entry. Static.
    Returns:
      x's dtype[*s]; x itself from k = size on.
    Gradient: flows through what is kept; it jumps where the choice changes.
    Cost: a partial sort of all entries, which it gathers if x is sharded.
    Raises: ValueError for a k out of range.
    Source: Richtarik et al., "Error Feedback Reloaded: From Quadratic to Arithmetic
      Mean of Smoothness Constants", 2024, arXiv:2402.10774, sec. 1. Differs: none.
    Example:
      >>> top_k(jnp.array([1.0, -3.0, 2.0]), k=2)
      Array([ 0., -3.,  2.], dtype=float32)
    """
    x = jnp.asarray(x)
    flat = jnp.ravel(x)
    _, kept = lax.top_k(jnp.abs(lax.stop_gradient(flat)), entries("k", k, x.size))
    return _only(flat, kept).reshape(x.shape)


def rand_k(
    x: Float[ArrayLike, "*s"], *, k: int | float, key: Key[Array, ""]
) -> Float[Array, "*s"]:
    """k entries at random, the rest zero; needs no sort, and no message of places.

    alpha = k / size, in the mean over keys

    Args:
      x: float[*s].
      k: entries to keep (an int >= 0), or their share in [0, 1], rounded up to an
        entry. Static.
      key: a typed key; the same on two machines keeps the same places.
    Returns:
      x's dtype[*s]; not scaled by size / k, which would make it unbiased but not
      contractive.
    Gradient: flows through what is kept.
    Cost: a permutation of the places.
    Raises: ValueError for a k out of range.
    Source: Richtarik et al., "Error Feedback Reloaded: From Quadratic to Arithmetic
      Mean of Smoothness Constants", 2024, arXiv:2402.10774, sec. 1. Differs: none.
    Example:
      >>> kept = rand_k(jnp.ones(100), k=0.2, key=jax.random.key(0))
      >>> kept.sum()
      Array(20., dtype=float32)
    """
    x = jnp.asarray(x)
    kept = jax.random.permutation(key, x.size)[: entries("k", k, x.size)]
    return _only(jnp.ravel(x), kept).reshape(x.shape)


def scaled_sign(x: Float[ArrayLike, "*s"]) -> Float[Array, "*s"]:
    """The signs at the mean magnitude: one bit an entry and one number.

    (|x|_1 / size) sign(x), alpha = |x|_1^2 / (size |x|_2^2) >= 1 / size

    Args:
      x: float[*s].
    Returns:
      x's dtype[*s]; 0 where x is 0, which lets alpha hold for vectors with zeros too.
    Gradient: through the magnitude alone; 0 through the signs, and at 0.
    Cost: one reduction.
    Source: Richtarik et al., "Error Feedback Reloaded: From Quadratic to Arithmetic
      Mean of Smoothness Constants", 2024, arXiv:2402.10774, sec. 1 (the definition of a
      contractive compressor, of which this is the one-bit example). Differs: none.
    Example:
      >>> scaled_sign(jnp.array([1.0, -3.0, 2.0]))
      Array([ 2., -2.,  2.], dtype=float32)
    """
    x = jnp.asarray(x)
    wide = at_least_f32(x)
    size = jnp.sum(safe.absolute(wide) / max(x.size, 1))  # divided first: no overflow
    return (size * jnp.sign(wide)).astype(x.dtype)


def entries(name: str, k: int | float, size: int) -> int:
    """How many of `size` entries an int or a share means."""
    if isinstance(k, int | np.integer):
        at_least(name, k, 0)
        return min(int(k), size)
    between(name, k, 0, 1)
    return math.ceil(k * size * (1 - 1e-12))  # 0.1 * 30 is a little more than 3


def _only(flat: Float[Array, " n"], kept: Array) -> Float[Array, " n"]:
    return jnp.zeros_like(flat).at[kept].set(flat[kept], unique_indices=True)
