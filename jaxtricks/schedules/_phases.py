"""The arithmetic of piecewise schedules: where a step stands in its phase, and shapes.

Steps are subtracted in their own integer type before anything is rounded, and the ends
of a phase are reached exactly.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, ScalarLike, Shaped

from .. import _safe as safe
from .._check import known, one_of
from .._mask import at_least_f32

Count = int | float | np.integer | Shaped[Array, ""]
Shape = str | Callable[[Array], Array]

SHAPES = (
    "cosine",
    "exponential",
    "inverse",
    "inverse_sqrt",
    "linear",
    "lowered_linear",
    "mirror_cosine",
    "sqrt",
    "square",
)


def values(*numbers: ScalarLike) -> tuple[Float[Array, ""], ...]:
    """The numbers in one dtype, at least f32."""
    return _alike([at_least_f32(number) for number in numbers])


def steps(*counts: Shaped[ArrayLike, "..."]) -> tuple[Shaped[Array, "..."], ...]:
    """The step counts in one dtype: integers, unless one of them is a float."""
    return _alike([jnp.asarray(count) for count in counts])


def _alike(arrays: list[Array]) -> tuple[Array, ...]:
    def rank(dtype):
        return jnp.issubdtype(dtype, jnp.inexact), dtype.itemsize

    dtype = max((x.dtype for x in arrays), key=rank)
    return tuple(x.astype(dtype) for x in arrays)


def progress(
    step: Shaped[Array, "*s"],
    begin: Shaped[Array, ""],
    end: Shaped[Array, ""],
    like: Float[Array, ""],
) -> Float[Array, "*s"]:
    """How far from `begin` to `end`, in [0, 1] and of the dtype of `like`."""
    length = end - begin
    done = jnp.clip(step - begin, 0, length)
    return safe.divide(done.astype(like.dtype), length.astype(like.dtype))


def mix(
    share: Float[Array, "*s"], high: Float[Array, ""], low: Float[Array, ""]
) -> Float[Array, "*s"]:
    """`high` at share 1 and `low` at share 0, both exactly."""
    return share * high + (1 - share) * low


def decayed(
    x: Float[Array, "*s"], high: Float[Array, ""], low: Float[Array, ""], shape: Shape
) -> Float[Array, "*s"]:
    """From `high` at x = 0 to `low` at x = 1."""
    match shape:
        case "inverse":
            return high * safe.divide(low, mix(x, high, low))
        case "exponential":
            ratio = safe.divide(low, high)
            log = jnp.log(jnp.where(ratio > 0, ratio, 1))
            return jnp.where(ratio > 0, high * jnp.exp(x * log), 0)
        case "cosine":
            share = cosine(x)
        case "inverse_sqrt":
            # h(x) / h(1) without the cancellation in h.
            root = jnp.sqrt(1 + 10 * x)
            share = 1 - x * (11 + 11**0.5) / (root * (1 + root))
        case "linear":
            share = 1 - x
        case "lowered_linear":
            share = 0.7 * (1 - x)
        case "mirror_cosine":
            share = 2 * (1 - x) - cosine(x)
        case "sqrt":
            share = 1 - safe.sqrt(x)
        case "square":
            share = 1 - jnp.square(x)
        case _:
            assert callable(shape)
            share = shape(x)
    return mix(share, high, low)


def cosine(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """(1 + cos(pi x)) / 2, from 1 at x = 0 to 0 at x = 1, with all its digits there."""
    return jnp.square(jnp.sin(jnp.pi / 2 * (1 - x)))


def check_shape(shape: Shape, ends: dict[str, Any]) -> None:
    """ValueError for an unknown name, or values that the shape cannot connect."""
    if callable(shape):
        return
    one_of("shape", shape, SHAPES)
    if shape in ("inverse", "exponential"):
        for name, value in ends.items():
            if known(value) and not value > 0:
                raise ValueError(f"{name}: wanted > 0 for shape {shape}, came {value}")


def check_fits(name: str, length: Count, room: Count) -> None:
    """ValueError unless 0 <= length <= room, as far as they are known."""
    if known(length) and not length >= 0:
        raise ValueError(f"{name}: wanted >= 0, came {length}")
    if known(length) and known(room) and not length <= room:
        raise ValueError(f"{name}: wanted at most {room} steps, came {length}")


def check_budgets(budgets: Count | Sequence[Count]) -> tuple[Count, ...]:
    """The budgets as a tuple; ValueError unless positive and increasing."""
    marks = tuple(budgets) if isinstance(budgets, Sequence) else (budgets,)
    rising = all(
        before < after
        for before, after in pairwise((0, *marks))
        if known(before) and known(after)
    )
    if not (marks and rising):
        raise ValueError(f"budgets: wanted positive and increasing, came {marks}")
    return marks
