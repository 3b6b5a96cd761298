"""What learned optimizers look at: a parameter, its gradient, and averages of both.

Averages run at several decays at once, side by side on a last axis. Of a matrix, second
moments are kept by row and by column too, as Adafactor does.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .._mask import at_least_f32

DECAYS = {"mean": (0.9, 0.99, 0.999), "square": (0.999,), "factor": (0.9, 0.99, 0.999)}


class Moments(NamedTuple):
    """Averages of one parameter's gradients, in at least f32."""

    mean: Float[Array, "..."]  # [*leaf, 3]
    square: Float[Array, "..."]  # [*leaf, 1]
    row: Float[Array, "..."]  # [*leaf, 3], 1 long where it is averaged over
    col: Float[Array, "..."]  # likewise; both are [*leaf, 3] of what is no matrix


def largest(shape: Sequence[int]) -> tuple[int, int] | None:
    """The axes of a matrix: its longest but one, and its longest; None of a vector."""
    if len(shape) < 2:
        return None
    order = np.argsort(shape, kind="stable")
    return int(order[-2]), int(order[-1])


def begin(param: Float[ArrayLike, "..."]) -> Moments:
    """All zero."""

    def zeros(count, axis=None):
        like = jnp.zeros_like(at_least_f32(param))
        if axis is not None:
            like = lax.slice_in_dim(like, 0, 1, axis=axis)
        return jnp.stack([like] * count, axis=-1)

    mean, square, factor = (len(DECAYS[k]) for k in ("mean", "square", "factor"))
    short, long = largest(jnp.shape(param)) or (None, None)
    return Moments(
        zeros(mean), zeros(square), zeros(factor, long), zeros(factor, short)
    )


def decays(
    shifts: dict[str, Float[ArrayLike, " _"]],
) -> dict[str, Float[Array, " _"]]:
    """1 - (1 - start) e^(10 shift): a shift of 0 is where a decay starts."""

    def shifted(start, by):
        by = at_least_f32(by)
        return 1 - (1 - jnp.asarray(start, by.dtype)) * jnp.exp(10 * by)

    return {name: shifted(start, shifts[name]) for name, start in DECAYS.items()}


def advance(
    moments: Moments, grads: Float[Array, "..."], decays: dict[str, Float[Array, " _"]]
) -> Moments:
    """With one more gradient."""
    g = grads[..., None]

    def average(old, new, rate):
        rate = rate.reshape([1] * (old.ndim - 1) + [-1])
        return rate * old + (1 - rate) * new

    square, factor = (jnp.clip(decays[k], 0, 1) for k in ("square", "factor"))
    energy = g * g + 1e-30
    short, long = largest(grads.shape) or (None, None)
    row = energy if long is None else jnp.mean(energy, axis=long, keepdims=True)
    col = energy if short is None else jnp.mean(energy, axis=short, keepdims=True)
    return Moments(
        average(moments.mean, g, decays["mean"]),
        average(moments.square, g * g, square),
        average(moments.row, row, factor),
        average(moments.col, col, factor),
    )


def features(
    params: Float[Array, "..."],
    grads: Float[Array, "..."],
    moments: Moments,
    *,
    more: bool = False,
) -> Float[Array, "... features"]:
    """[*leaf, 28], each scaled to a root mean square of 1 over the parameter.

    `more`: also the clipped gradient, and that over its root mean square: [*leaf, 30].
    """
    m, rms, row, col = moments
    g = grads[..., None]
    inverse = lax.rsqrt(rms + 1e-6)
    factor = _factor(moments, grads.shape)
    before = [g, jnp.clip(g, -0.1, 0.1)] if more else [g]
    after = [g * inverse] if more else []
    short, _ = largest(grads.shape) or (None, None)
    # What is no matrix has a momentum over its own root mean square.
    near = 1e-20 if more else 1e-6
    scaled = m * factor if short is not None else m * lax.rsqrt(row + near)
    parts = [
        *before,
        params[..., None],
        m,
        rms,
        m * inverse,
        inverse,
        g * factor,
        *after,
        row,
        col,
        lax.rsqrt(row + 1e-8),
        lax.rsqrt(col + 1e-8),
        scaled,
    ]
    wide = [jnp.broadcast_to(x, (*grads.shape, x.shape[-1])) for x in parts]
    return normalized(jnp.concatenate(wide, axis=-1), grads.ndim)


def normalized(x: Float[Array, "..."], axes: int) -> Float[Array, "..."]:
    """Over the root of the mean square along so many first axes."""
    squares = jnp.mean(x * x, axis=tuple(range(axes)), keepdims=True)
    return x * lax.rsqrt(1e-5 + squares)


def _factor(moments: Moments, shape: Sequence[int]) -> Float[Array, "..."]:
    """What Adafactor multiplies a gradient with, [*leaf, 3]."""
    axes = largest(shape)
    if axes is None:
        return _rsqrt(moments.row + 1e-9)
    mean = jnp.mean(moments.row, axis=axes[0], keepdims=True)
    return _rsqrt(moments.row / (mean + 1e-9)) * _rsqrt(moments.col)


def _rsqrt(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return lax.rsqrt(jnp.maximum(x, 1e-9))
