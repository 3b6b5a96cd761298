"""KL-regularised distributionally robust weights: the worst distribution near the data.

The maximiser over the simplex has a closed form, a softmax of the losses. A batch only
sees itself, which biases small ones; the moving form keeps the normaliser across steps.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, ScalarLike

from .. import _safe as safe
from .._batch import AxisName, total
from .._check import above, between
from .._mask import blank
from .._pairs import Weighting
from ._over_batch import largest, softmax, stopped


def kl_dro(
    losses: Float[ArrayLike, "*batch"],
    *,
    temperature: ScalarLike = 1.0,
    where: Bool[ArrayLike, "*batch"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch"]:
    """The worst weights within a KL price of uniform; lifts the hardest. Batch-coupled.

    w = argmax over the simplex of sum_i w_i l_i - r sum_i w_i log(n w_i)
      = softmax(l / r),  r = temperature

    sum(w l) then has the gradient of r log mean exp(l / r), the robust loss itself.

    Args:
      losses: float[*batch], finite; a live NaN or inf makes every weight NaN.
      temperature: r > 0, in units of the loss: large is uniform, towards 0 only the
        hardest example counts. May be traced and scheduled.
      where: bool[*batch], True counts.
      axis_name: the axis or axes of shard_map or pmap that the batch is split over.
    Returns:
      f32[*batch] in [0, 1], summing to 1 over the live whole batch: the loss is
      sum(w l), over all devices. 0 where masked; uniform for equal losses.
    Gradient: stops at losses; smooth in temperature.
    Cost: a gather of the losses with `axis_name`.
    Raises: ValueError for a temperature <= 0 or a `where` of another shape.
    Source: Sow et al., "Doubly Robust Instance-Reweighted Adversarial Training", 2023,
      arXiv:2308.00311, the weights of the KL-regularised objective. Differs: only the
      weights, of any losses, the attack being the caller's; the default r is ours.
    Example:
      >>> print(*kl_dro(jnp.array([1.0, 2.0, 3.0])))
      0.09 0.2447 0.6652
    """
    return softmax(lambda x, live: x, losses, temperature, where, axis_name)


class MovingState(NamedTuple):
    """What `kl_dro_moving` remembers: log u = anchor / r + log_ratio."""

    anchor: Float[Array, ""]  # f32[], the loss that dominates u
    log_ratio: Float[Array, ""]  # f32[]; -inf before the first live batch


def kl_dro_moving(
    *, temperature: ScalarLike = 1.0, beta: ScalarLike = 0.1
) -> Weighting:
    """`kl_dro` against a moving normaliser; for batches too small to see themselves.

    u <- (1 - beta) u + beta mean_i exp(l_i / r),  r = temperature
    w_i = exp(l_i / r) / (n u),  n the live examples of the whole batch

    A batch harder than the run so far weighs more as a whole, an easier one less. The
    first live batch sets u to its own mean; a batch with nothing live leaves it.

    Args:
      temperature: r > 0, in units of the loss. May be traced; u belongs to one r.
      beta: in (0, 1], the share of the new batch in u; 1 is kl_dro. May be traced.
    Returns:
      Weighting(init() -> state, update(losses, state, *, where, axis_name) ->
      (f32[*batch], summing to at most 1 / beta, state)). The loss is sum(w l) over all
      devices: divided by sum(w), as reduce.mean does, it would be kl_dro again. The
      state is two numbers, the same on every device. Batch-coupled.
    Gradient: stops at losses; smooth in temperature and beta, also through the state.
    Cost: three scalars over the network with `axis_name`.
    Raises: ValueError for a temperature <= 0, a beta outside (0, 1], or a `where` of
      another shape.
    Source: Sow et al., "Doubly Robust Instance-Reweighted Adversarial Training", 2023,
      arXiv:2308.00311, the inner estimate of the compositional gradient. Differs: u
      starts at the mean of the first batch and is a logarithm; the defaults are ours.
    Example:
      >>> weighting = kl_dro_moving(beta=0.5)
      >>> _, state = weighting.update(jnp.array([0.0, 0.0]), weighting.init())
      >>> print(*weighting.update(jnp.array([0.0, 1.0]), state)[0])
      0.3497 0.9507
    """
    above("temperature", temperature, 0)
    above("beta", beta, 0)
    between("beta", beta, 0, 1)

    def init() -> MovingState:
        return MovingState(jnp.zeros(()), jnp.full((), -jnp.inf))

    def update(
        losses: Float[ArrayLike, "*batch"],
        state: MovingState,
        *,
        where: Bool[ArrayLike, "*batch"] | None = None,
        axis_name: AxisName | None = None,
    ) -> tuple[Float[Array, "*batch"], MovingState]:
        losses, live = stopped(losses, where)
        share = jnp.asarray(beta, losses.dtype)
        peak = largest(losses, live)
        if axis_name is not None:
            peak = lax.pmax(peak, axis_name)
        count = total(live.astype(losses.dtype), axis_name)
        empty, first = jnp.equal(count, 0), jnp.isneginf(state.log_ratio)
        raised = jnp.exp(blank((losses - peak) / temperature, live, -jnp.inf))
        mean = safe.divide(total(raised, axis_name), count)
        log_mean = jnp.log(jnp.where(empty, jnp.ones_like(mean), mean))
        old = safe.log(1 - share) + state.log_ratio
        new = safe.log(share) + log_mean
        # Relative to the loss that dominates u: no overflow, and no rounding of l / r.
        gap = (peak - state.anchor) / temperature
        ahead = old > new + gap
        anchor = jnp.where(ahead, state.anchor, peak)
        log_ratio = jnp.where(
            ahead, jnp.logaddexp(old, new + gap), jnp.logaddexp(old - gap, new)
        )
        log_ratio = jnp.where(first, log_mean, log_ratio)
        raised = blank((losses - anchor) / temperature - log_ratio, live, -jnp.inf)
        weights = safe.divide(jnp.exp(raised), count)
        after = jax.tree.map(
            lambda now, before: jnp.where(empty, before, now).astype(before.dtype),
            MovingState(anchor, log_ratio),
            state,
        )
        return weights, after

    return Weighting(init, update)
