"""Masks and labels: blank what does not count, read the logit of a label.

Every loss blanks its input before the maths (so that NaN under the mask never meets a
derivative) and its output after, and reads labels by a masked sum, which is right on
class-sharded logits and turns a label out of range into NaN.
"""

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Integer, Shaped


def at_least_f32(x: Shaped[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """The computing dtype: f64 stays f64, every other real becomes f32."""
    dtype = jnp.result_type(x)  # promote_types refuses bf16 with f32 in strict mode
    wide = jnp.issubdtype(dtype, jnp.inexact) and dtype.itemsize >= 4
    return jnp.asarray(x, dtype if wide else jnp.float32)


def blank(
    x: Shaped[ArrayLike, "*shape"],
    where: Bool[ArrayLike, "*batch"] | None,
    fill: float | int = 0,
) -> Shaped[Array, "*shape"]:
    """`x` with `fill` where `where` is False; `where` has x's leading axes.

    A `where` that does not fit raises ValueError, rather than broadcasting.
    """
    x = jnp.asarray(x)
    if where is None:
        return x
    where = jnp.asarray(where)
    if where.shape != x.shape[: where.ndim]:
        raise ValueError(
            f"where: wanted the leading axes of {x.shape}, came {where.shape}"
        )
    where = where.reshape(where.shape + (1,) * (x.ndim - where.ndim))
    return jnp.where(where, x, jnp.asarray(fill, x.dtype))


def at_label(
    x: Float[Array, "*batch classes"], labels: Integer[ArrayLike, "*batch"]
) -> Float[Array, "*batch"]:
    """x[..., labels], by a masked sum; NaN for a label outside [0, classes)."""
    hit = one_hot(labels, x.shape)
    picked = jnp.sum(jnp.where(hit, x, 0), axis=-1)
    return jnp.where(jnp.any(hit, axis=-1), picked, jnp.nan)


def one_hot(
    labels: Integer[ArrayLike, "*batch"], shape: tuple[int, ...]
) -> Bool[Array, "*batch classes"]:
    """Bool of `shape`, True at the label; all False where it is out of range.

    Labels that are not integers, or not of the batch shape, raise ValueError.
    """
    labels = jnp.asarray(labels)
    if labels.shape != shape[:-1] or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"labels: wanted integers of shape {shape[:-1]} beside classes "
            f"{shape}, came {labels.dtype}{list(labels.shape)}"
        )
    if labels.dtype.itemsize < 4:  # an int8 iota would wrap beyond 127 classes
        labels = labels.astype(jnp.int32)
    iota = lax.broadcasted_iota(
        labels.dtype, (1,) * labels.ndim + shape[-1:], labels.ndim
    )
    return labels[..., None] == iota
