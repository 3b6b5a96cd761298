"""Exponentials as mantissa times power of two: sums of them that cannot overflow.

The arithmetic of the two-pass softmax. A pair (mantissa, exponent) is two floats, the
exponent a whole number; scaling by a power of two is exact, so that no maximum has to
be known before adding up, whatever the order.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .._mask import at_least_f32

Extended = tuple[Float[Array, "*shape"], Float[Array, "*shape"]]
ExtendedLike = tuple[Float[ArrayLike, "*shape"], Float[ArrayLike, "*shape"]]


def ext_exp(x: Float[ArrayLike, "*shape"]) -> Extended:
    """e^x as mantissa * 2^exponent, for any finite x; to be added up by `ext_add`.

    exponent = round(x / ln 2),   mantissa = e^(x - exponent ln 2)

    Args:
      x: float[*shape]; -inf gives the zero (0, -inf). NaN beyond |x| of 2e38.
    Returns:
      f32[*shape] (f64 of f64) in [sqrt(1/2), sqrt(2)], and a whole number of that type.
    Gradient: of the mantissa, itself; the exponent is a constant.
    Cost: one sweep.
    Source: Dukhan, Ablavatski, "The Two-Pass Softmax Algorithm", 2020,
      arXiv:2001.04438, sec. 3. Differs: ln 2 in three terms, exp by XLA's.
    Example:
      >>> ext_exp(jnp.array([0.0, 1000.0]))  # e^1000 = 0.8095 * 2^1443
      (Array([1.    , 0.8095], dtype=float32), Array([   0., 1443.], dtype=float32))
    """
    x = at_least_f32(x)
    exponent = _exponent(x)
    live = exponent > -jnp.inf
    whole = jnp.where(live, lax.stop_gradient(exponent), 0)
    rest = jnp.where(live, x, 0)
    for term in _LN_2[x.dtype.name]:
        rest = rest - whole * term
    return jnp.where(live, jnp.exp(rest), 0), exponent


def ext_add(a: ExtendedLike, b: ExtendedLike) -> Extended:
    """The sum of two numbers mantissa * 2^exponent; cannot overflow.

    Associative and commutative up to the rounding of one addition, as the mantissas are
    only ever scaled by powers of two: partial sums of blocks or of shards combine to
    the sum of all, by `jax.lax.reduce` or `jax.lax.associative_scan`.

    Args:
      a: (mantissa, exponent), float[*shape] each; the zero is (0, -inf).
      b: another of the same shape and dtype.
    Returns:
      their sum, with the greater exponent; the other loses what is 2^-126 of it.
    Gradient: of the mantissas, the powers of two; exponents are constants.
    Cost: one sweep.
    Source: Dukhan, Ablavatski, "The Two-Pass Softmax Algorithm", 2020,
      arXiv:2001.04438, sec. 3. Differs: none.
    Example:
      >>> one, big = (jnp.ones(1), jnp.zeros(1)), (jnp.ones(1), jnp.full(1, 1e4))
      >>> ext_add(one, one)[0], ext_add(one, big)[1]
      (Array([2.], dtype=float32), Array([10000.], dtype=float32))
    """
    exponent = jnp.maximum(a[1], b[1])
    parts = [mantissa * power_of_two(n, exponent) for mantissa, n in (a, b)]
    return jnp.add(*parts), exponent


def ext_sum(x: Float[Array, "*batch classes"]) -> tuple[Array, Array]:
    """The sum of e^x over the last axis in one sweep, by blocks that stay in cache."""
    classes = x.shape[-1]
    rows = max(1, math.prod(x.shape[:-1]))
    block = max(_LEAST, _BLOCK // rows)
    # Slices along an axis that the compiler splits would gather it first.
    if classes <= block or _partitioned():
        return _sum_of_block(x)

    def add(i, total):
        start = jnp.minimum(i * block, classes - block)
        part = lax.dynamic_slice_in_dim(x, start, block, axis=-1)
        # The last block begins early, to be whole: what was added is left out.
        new = start + lax.iota(jnp.int32, block) >= i * block
        new = jnp.broadcast_to(new, part.shape)
        return ext_add(total, _sum_of_block(jnp.where(new, part, -jnp.inf)))

    zero = jnp.sum(at_least_f32(x[..., :0]), axis=-1)
    return lax.fori_loop(0, -(-classes // block), add, (zero, zero - jnp.inf))


def _sum_of_block(x):
    """Scaled by the greatest exponent, the one of the maximum."""
    top = _exponent(at_least_f32(jnp.max(x, axis=-1, initial=-jnp.inf)))
    mantissa, exponent = ext_exp(x)
    return jnp.sum(mantissa * power_of_two(exponent, top[..., None]), axis=-1), top


def _exponent(x):
    """round(x / ln 2), as a float."""
    return lax.round(x * _LOG2_E, lax.RoundingMethod.TO_NEAREST_EVEN)


def _partitioned() -> bool:
    """Whether a mesh is set whose axes are not all taken over by hand."""
    mesh = jax.sharding.get_abstract_mesh()
    return any(kind != AxisType.Manual for kind in mesh.axis_types)


def power_of_two(exponent, top):
    """2^(exponent - top), exact; 0 from 2^-127 on (2^-1023 in f64)."""
    info = jnp.finfo(exponent.dtype)
    integer = jnp.int32 if info.bits == 32 else jnp.int64
    down = jnp.maximum(exponent - jnp.where(top > -jnp.inf, top, 0), info.minexp - 1)
    biased = down.astype(integer) + (1 - info.minexp)
    return lax.bitcast_convert_type(biased << info.nmant, exponent.dtype)


_BLOCK, _LEAST = 2**16, 128  # elements in all, and of a row
_LOG2_E = 1.4426950408889634
# Each term but the last has so few digits that its product with an exponent is exact.
_LN_2 = {
    "float32": tuple(
        map(float.fromhex, ("0x1.628p-1", "0x1.908p-11", "0x1.fdf474p-22"))
    ),
    "float64": tuple(map(float.fromhex, ("0x1.62e42ffp-1", "-0x1.718432a1b0e26p-35"))),
}
