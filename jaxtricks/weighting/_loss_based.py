"""Dynamic loss-based reweighting: a softmax over what a loss is worth in its batch.

The losses of the batch are first stretched to [-1, 1]; the four functions differ in
what they call worth learning from. A schedule on the temperature moves from all alike
(high) to picky (low). What a formula adds to every score is left out: softmax drops it.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, ScalarLike

from .._batch import AxisName
from .._check import above
from ._over_batch import largest, smallest, softmax


def linupper(
    losses: Float[ArrayLike, "*batch"],
    *,
    temperature: ScalarLike = 1.0,
    delta: ScalarLike = 1.0,
    where: Bool[ArrayLike, "*batch"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch"]:
    """Less weight for what is already learned, none extra for outliers. Batch-coupled.

    h = delta (2 l - l_max - l_min) / max(l_max - l_min, 1e-6)
    w = softmax(min(h + delta, delta) / temperature)

    Args:
      losses: float[*batch], finite; a live NaN or inf makes every weight NaN.
      temperature: > 0, large is uniform. May be traced, and scheduled: the source
        starts high, so that early losses, which say little, weigh alike.
      delta: > 0, the range of h. Only delta / temperature matters.
      where: bool[*batch], True counts; masked losses are outside l_min, l_max and w.
      axis_name: the axis or axes of shard_map or pmap that the batch is split over.
    Returns:
      f32[*batch] in [0, 1], summing to 1 over the live whole batch: the loss is
      sum(w l), over all devices. 0 where masked; uniform for equal losses.
    Gradient: stops at losses; smooth in temperature and delta.
    Cost: a gather of the losses with `axis_name`.
    Raises: ValueError for a temperature or delta <= 0, or a `where` of another shape.
    Source: Sow et al., "Dynamic Loss-Based Sample Reweighting for Improved Large
      Language Model Pretraining", 2025, arXiv:2502.06733, LinUpper. Differs: no
      unweighted steps at the start (raise the temperature), no weighting by tokens.
    Example:
      >>> print(*linupper(jnp.array([1.0, 2.0, 3.0])))  # alike above the middle
      0.1554 0.4223 0.4223
    """
    above("delta", delta, 0)

    def score(losses, live):
        return jnp.minimum(_stretched(losses, live), 0) * delta

    return softmax(score, losses, temperature, where, axis_name)


def upper(
    losses: Float[ArrayLike, "*batch"],
    *,
    temperature: ScalarLike = 1.0,
    delta: ScalarLike = 1.0,
    where: Bool[ArrayLike, "*batch"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch"]:
    """More weight the higher the loss, outliers included. Batch-coupled.

    h = delta (2 l - l_max - l_min) / max(l_max - l_min, 1e-6)
    w = softmax((h + delta) / 2 / temperature)

    Args:
      losses: float[*batch], finite; a live NaN or inf makes every weight NaN.
      temperature: > 0, large is uniform. May be traced and scheduled.
      delta: > 0, the range of h. Only delta / temperature matters.
      where: bool[*batch], True counts; masked losses are outside l_min, l_max and w.
      axis_name: the axis or axes of shard_map or pmap that the batch is split over.
    Returns:
      f32[*batch] in [0, 1], summing to 1 over the live whole batch. 0 where masked;
      uniform for equal losses.
    Gradient: stops at losses; smooth in temperature and delta.
    Cost: a gather of the losses with `axis_name`.
    Raises: ValueError for a temperature or delta <= 0, or a `where` of another shape.
    Source: Sow et al., "Dynamic Loss-Based Sample Reweighting for Improved Large
      Language Model Pretraining", 2025, arXiv:2502.06733, the strategy upper of the
      authors' code. Differs: as for linupper.
    Example:
      >>> print(*upper(jnp.array([1.0, 2.0, 3.0])))
      0.1863 0.3072 0.5065
    """
    above("delta", delta, 0)

    def score(losses, live):
        return _stretched(losses, live) / 2 * delta

    return softmax(score, losses, temperature, where, axis_name)


def extremes(
    losses: Float[ArrayLike, "*batch"],
    *,
    temperature: ScalarLike = 1.0,
    delta: ScalarLike = 1.0,
    where: Bool[ArrayLike, "*batch"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch"]:
    """More weight for the easiest and the hardest, less between. Batch-coupled.

    h = delta (2 l - l_max - l_min) / max(l_max - l_min, 1e-6)
    w = softmax(|h| / temperature)

    Args:
      losses: float[*batch], finite; a live NaN or inf makes every weight NaN.
      temperature: > 0, large is uniform. May be traced and scheduled.
      delta: > 0, the range of h. Only delta / temperature matters.
      where: bool[*batch], True counts; masked losses are outside l_min, l_max and w.
      axis_name: the axis or axes of shard_map or pmap that the batch is split over.
    Returns:
      f32[*batch] in [0, 1], summing to 1 over the live whole batch. 0 where masked;
      uniform for equal losses.
    Gradient: stops at losses; smooth in temperature and delta.
    Cost: a gather of the losses with `axis_name`.
    Raises: ValueError for a temperature or delta <= 0, or a `where` of another shape.
    Source: Sow et al., "Dynamic Loss-Based Sample Reweighting for Improved Large
      Language Model Pretraining", 2025, arXiv:2502.06733, Extremes. Differs: as for
      linupper.
    Example:
      >>> print(*extremes(jnp.array([1.0, 2.0, 3.0])))
      0.4223 0.1554 0.4223
    """
    above("delta", delta, 0)

    def score(losses, live):
        return jnp.abs(_stretched(losses, live)) * delta

    return softmax(score, losses, temperature, where, axis_name)


def quadratic(
    losses: Float[ArrayLike, "*batch"],
    *,
    temperature: ScalarLike = 1.0,
    where: Bool[ArrayLike, "*batch"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch"]:
    """More weight between, less for the easiest and the hardest. Batch-coupled.

    h = (2 l - l_max - l_min) / max(l_max - l_min, 1e-6)
    w = softmax((1 - h^2) / temperature)

    Args:
      losses: float[*batch], finite; a live NaN or inf makes every weight NaN.
      temperature: > 0, large is uniform. May be traced and scheduled.
      where: bool[*batch], True counts; masked losses are outside l_min, l_max and w.
      axis_name: the axis or axes of shard_map or pmap that the batch is split over.
    Returns:
      f32[*batch] in [0, 1], summing to 1 over the live whole batch. 0 where masked;
      uniform for equal losses.
    Gradient: stops at losses; smooth in temperature.
    Cost: a gather of the losses with `axis_name`.
    Raises: ValueError for a temperature <= 0 or a `where` of another shape.
    Source: Sow et al., "Dynamic Loss-Based Sample Reweighting for Improved Large
      Language Model Pretraining", 2025, arXiv:2502.06733, Quadratic. Differs: as for
      linupper; the paper's delta cancels here, so there is none.
    Example:
      >>> print(*quadratic(jnp.array([1.0, 2.0, 3.0])))
      0.2119 0.5761 0.2119
    """

    def score(losses, live):
        return -jnp.square(_stretched(losses, live))

    return softmax(score, losses, temperature, where, axis_name)


def _stretched(
    losses: Float[Array, "*all"], live: Bool[Array, "*all"]
) -> Float[Array, "*all"]:
    """The losses from -1 (the least) to 1 (the largest); 0 if all are equal."""
    low, high = smallest(losses, live), largest(losses, live)
    # Two differences, not 2 l - (high + low): exact at the ends, whatever the offset.
    return ((losses - low) - (high - losses)) / jnp.maximum(high - low, 1e-6)
