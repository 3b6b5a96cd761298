"""Causal weights: what comes later in time counts once what came before is solved."""

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, ScalarLike

from .._batch import AxisName, share, whole
from .._check import at_least
from .._mask import blank
from ._over_batch import stopped


def causal(
    losses: Float[ArrayLike, "*batch"],
    *,
    eps: ScalarLike = 1.0,
    initial_loss: ScalarLike = 0.0,
    lam_ic: ScalarLike = 1e3,
    where: Bool[ArrayLike, "*batch"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch"]:
    """Each time step weighs what its past leaves unsolved; for PINNs. Batch-coupled.

    w_i = exp(-eps (lam_ic initial_loss + sum_{k<i} l_k)), i along the LAST axis

    Train through eps = 1e-2, 1e-1, 1, 10, 100, to the next when min(w) > 0.99.

    Args:
      losses: float[*batch], >= 0, in order of time along the last axis (each the mean
        squared residual over space); axes before it are independent runs.
      eps: >= 0, how strictly the past goes first; 0 weighs all alike. May be traced.
      initial_loss: f32[], the loss of the initial condition, the same on every device;
        0 where it is built into the network or kept outside the weights.
      lam_ic: >= 0, its coefficient; 1e2 to 1e5 in the source. May be traced.
      where: bool[*batch], True counts; a masked step is no past to anything.
      axis_name: the axis or axes of shard_map or pmap that axis 0 is split over.
    Returns:
      f32[*batch] in [0, 1], non-increasing in time; 1 where the whole past is solved; 0
      where masked. The loss is mean(w l), divided by the steps, not by sum(w).
    Gradient: stops at losses and initial_loss; smooth in eps and lam_ic.
    Cost: one cumulative sum; a gather of the losses with `axis_name`.
    Raises: ValueError for a negative eps or lam_ic, or a `where` of another shape.
    Source: Wang et al., "Respecting causality is all you need for training
      physics-informed neural networks", 2022, arXiv:2203.07404, the temporal weights.
      Differs: none; the loss lam_ic initial_loss itself is the caller's to add.
    Example:
      >>> print(*causal(jnp.array([0.5, 0.5, 2.0])))
      1.0 0.6065 0.3679
    """
    at_least("eps", eps, 0)
    at_least("lam_ic", lam_ic, 0)
    part, live = stopped(losses, where)
    everyone = whole(part, axis_name)
    series = jnp.atleast_1d(everyone)
    # Shift, then add up: cumsum(x) - x would lose a small past beside a large present.
    before = jnp.pad(series, [(0, 0)] * (series.ndim - 1) + [(1, 0)])[..., :-1]
    first = jnp.multiply(lam_ic, lax.stop_gradient(initial_loss))
    past = first + jnp.cumsum(before, axis=-1)
    weights = jnp.exp(-past * eps).reshape(everyone.shape)
    return blank(share(weights, part, axis_name), live)
