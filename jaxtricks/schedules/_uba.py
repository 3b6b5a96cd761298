"""The unified budget-aware schedule: one number says how early the decay happens."""

from collections.abc import Sequence

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, ScalarLike, Shaped

from .. import _safe as safe
from .._check import at_least
from ._phases import (
    Count,
    check_budgets,
    check_fits,
    cosine,
    mix,
    progress,
    steps,
    values,
)


def uba(
    peak: ScalarLike | Sequence[ScalarLike],
    *,
    budgets: Count | Sequence[Count],
    phi: ScalarLike = 1.0,
    warmup_steps: Count = 0,
    start: ScalarLike = 0.0,
    end: ScalarLike = 0.0,
) -> optax.Schedule:
    """Decay over a fixed budget, with one knob from "stay high" to "fall early".

    value = end + (peak - end) 2 (1 + c) / (2 phi + (2 - phi) (1 + c)),  c = cos(pi s),
    s = (t - T_{k-1}) / (T_k - T_{k-1}), T_0 = W

    Args:
      peak: the value at the start of a segment; or several, one for each segment. May
        be traced, as every number here.
      budgets: T_1 < T_2 < ..., the updates at which segments end; or one number.
      phi: >= 0, larger falls earlier, for harder curvature: 2 is cosine, towards 0 it
        stays at peak and drops at the end. The source tunes it in 0.25 to 10.
      warmup_steps: W, linear from start to peak, taken from the first segment.
      start: the value at step 0 when W > 0.
      end: the value that each segment heads for.
    Returns:
      step -> f32[]: peak at W and at the start of each segment, end from the last
      budget on, each exactly; end + (peak - end) 2 / (2 + phi) at s = 1/2.
    Gradient: finite in every number; 0 where it has no say.
    Cost: a few scalar operations a segment.
    Raises: ValueError for budgets that do not increase, a negative phi, a warmup that
      does not fit, or peaks that are not one a segment.
    Source: Tang et al., "Stepsize anything: A unified learning rate schedule for
      budgeted-iteration training", 2025, arXiv:2505.24452, the UBA schedule. Differs:
      phi is the same in every segment; the default phi is ours.
    Example:
      >>> schedule = uba(1.0, budgets=100, phi=1.0)
      >>> print(*schedule(jnp.array([0, 25, 50, 75, 100])))
      1.0 0.9210 0.6667 0.2555 0.0
    """
    at_least("phi", phi, 0)
    marks = check_budgets(budgets)
    peaks = tuple(peak) if isinstance(peak, Sequence) else (peak,) * len(marks)
    if len(peaks) != len(marks):
        raise ValueError(f"peak: wanted 1 or {len(marks)}, came {len(peaks)}")
    check_fits("warmup_steps", warmup_steps, marks[0])

    def schedule(step: Shaped[ArrayLike, "*s"]) -> Float[Array, "*s"]:
        first, low, bend, *highs = values(start, end, phi, *peaks)
        step, zero, begin, *ends = steps(step, 0, warmup_steps, *marks)
        value = mix(progress(step, zero, begin, low), highs[0], first)
        for high, mark in zip(highs, ends, strict=True):
            k = cosine(progress(step, begin, mark, low))
            # The formula over 4: exactly 1 at k = 1 and 0 at k = 0, also for phi = 0.
            share = safe.divide(2 * k, bend * (1 - k) + 2 * k)
            value = jnp.where(step < begin, value, mix(share, high, low))
            begin = mark
        return jnp.where(step < begin, value, low)

    return schedule
