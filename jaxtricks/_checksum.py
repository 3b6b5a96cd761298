"""32 bits of a whole tree, the same on any devices: to tell whether two are equal."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree, UInt32


def checksum(tree: PyTree) -> UInt32[Array, ""]:
    """A sum over all elements of what mixes their bits and their places: no order of
    summation changes it, a flipped bit or two swapped parts do.
    """
    total = jnp.zeros((), jnp.uint32)
    for leaf in jax.tree.leaves(tree):
        total = _mix(total + checksum_leaf(raw(jnp.asarray(leaf))) + jnp.uint32(1))
    return total


def checksum_leaf(leaf: Array) -> UInt32[Array, ""]:
    """sum of mix(bits xor mix(place)) mod 2^32, of what is no key."""
    bits = _bits(leaf)
    place = jnp.zeros(bits.shape, jnp.uint32)
    for axis in range(bits.ndim):
        stride = math.prod(bits.shape[axis + 1 :]) % 2**32
        along = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        place += along * jnp.uint32(stride)
    return jnp.sum(_mix(bits ^ _mix(place + jnp.uint32(1))), dtype=jnp.uint32)


def raw(leaf: Any) -> Any:
    """A random key as the numbers that it is; all else, types of arrays too, as is."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _bits(x: Array) -> Array:
    """As uint32; of 64 bits two, in a last axis."""
    if jnp.iscomplexobj(x):
        x = jnp.stack([x.real, x.imag], axis=-1)
    is_float = jnp.issubdtype(x.dtype, jnp.floating)
    if x.dtype == jnp.bool_:
        return x.astype(jnp.uint32)
    width = (jnp.finfo if is_float else jnp.iinfo)(x.dtype).bits
    if width < 8:
        return _bits(x.astype(jnp.float32 if is_float else jnp.int32))
    unsigned = {8: jnp.uint8, 16: jnp.uint16}.get(width, jnp.uint32)
    return jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)


def _mix(bits: Array) -> Array:
    """A bijection of 32 bits in which every bit reaches every other."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits = (bits ^ (bits >> shift)) * jnp.uint32(factor)
    return bits ^ (bits >> 16)
