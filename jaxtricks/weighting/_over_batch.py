"""What weightings share: constants on the way in, a softmax over the whole batch."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, ScalarLike

from .._batch import AxisName, share, whole
from .._check import above
from .._mask import at_least_f32, blank
from .._safe import divide


def stopped(
    losses: Float[ArrayLike, "*batch"], where: Bool[ArrayLike, "*batch"] | None
) -> tuple[Float[Array, "*batch"], Bool[Array, "*batch"]]:
    """The losses as constants, 0 where masked, and which of them are live."""
    losses = lax.stop_gradient(at_least_f32(losses))
    if where is None:
        return losses, jnp.ones_like(losses, dtype=bool)
    where = jnp.asarray(where)
    if where.shape != losses.shape:
        raise ValueError(f"where: wanted shape {losses.shape}, came {where.shape}")
    return blank(losses, where), where


def softmax(
    score: Callable[[Float[Array, "*all"], Bool[Array, "*all"]], Float[Array, "*all"]],
    losses: Float[ArrayLike, "*batch"],
    temperature: ScalarLike,
    where: Bool[ArrayLike, "*batch"] | None,
    axis_name: AxisName | None,
) -> Float[Array, "*batch"]:
    """exp(score / temperature), summing to 1 over what is live in the whole batch."""
    above("temperature", temperature, 0)
    part, live = stopped(losses, where)
    everyone, live = whole(part, axis_name), whole(live, axis_name)
    scores = score(everyone, live)
    # What is masked may score anything: out before exp, whose inf has NaN derivatives.
    below = blank(scores - largest(scores, live), live)
    raised = blank(jnp.exp(below / temperature), live)
    return share(divide(raised, jnp.sum(raised)), part, axis_name)


def largest(x: Float[Array, "*all"], live: Bool[Array, "*all"]) -> Float[Array, ""]:
    """The live maximum, a constant; 0 if nothing is live."""
    return -smallest(-x, live)


def smallest(x: Float[Array, "*all"], live: Bool[Array, "*all"]) -> Float[Array, ""]:
    """The live minimum, a constant; 0 if nothing is live."""
    least = jnp.min(lax.stop_gradient(x), where=live, initial=jnp.inf)
    return blank(least, jnp.any(live))
