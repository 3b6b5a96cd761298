"""Re-warming and re-decaying: the schedule for going on with new data after a decay."""

from collections.abc import Sequence
from itertools import pairwise

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, ScalarLike, Shaped

from ._phases import (
    Count,
    check_budgets,
    check_fits,
    decayed,
    mix,
    progress,
    steps,
    values,
)


def rewarm(
    peak: ScalarLike,
    *,
    budgets: Count | Sequence[Count],
    warmup_steps: Count | None = None,
    start: ScalarLike = 0.0,
    end: ScalarLike | None = None,
) -> optax.Schedule:
    """Linear warmup and cosine decay for each new data set; for continued training.

    For each data set, from T_{k-1} to T_k: start (the first) or end (later) -> peak,
    linear over W steps; then end + (peak - end) (1 + cos(pi x)) / 2 until T_k.

    Args:
      peak: the value after each warmup. May be traced, as every number here.
      budgets: T_1 < T_2 < ..., the updates at which data sets end; or one number.
      warmup_steps: W, of each; None is 1 % of each data set.
      start: the value at step 0 when W > 0; 0, or the end of the run before.
      end: the value that each decay reaches; None is peak / 10.
    Returns:
      step -> f32[]: start at 0, peak at T_{k-1} + W, end at T_k (peak if W = 0 and data
      follow) and beyond the last, each exactly. With one budget it is
      optax.warmup_cosine_decay_schedule(start, peak, W, T, end), but traceable.
    Gradient: finite in every number; 0 where it has no say.
    Cost: a few scalar operations a data set.
    Raises: ValueError for budgets that do not increase or a warmup that does not fit.
    Source: Gupta et al., "Continual Pre-Training of Large Language Models: How to
      (re)warm your model?", 2023, arXiv:2308.04014, the schedule; Ibrahim et al.,
      "Simple and Scalable Strategies to Continually Pre-train Large Language Models",
      2024, arXiv:2403.08763, the repetition. Differs: none.
    Example:
      >>> schedule = rewarm(1.0, budgets=(50, 100), warmup_steps=10)
      >>> print(*schedule(jnp.array([0, 10, 30, 50, 60, 100])))
      0.0 1.0 0.55 0.1 1.0 0.1
    """
    marks = check_budgets(budgets)
    peaks = []
    for begin, mark in pairwise((0, *marks)):
        warmup = (mark - begin) // 100 if warmup_steps is None else warmup_steps
        check_fits("warmup_steps", warmup, mark - begin)
        peaks.append(begin + warmup)

    def schedule(step: Shaped[ArrayLike, "*s"]) -> Float[Array, "*s"]:
        high, first = values(peak, start)
        low = high / 10 if end is None else values(peak, end)[1]
        step, begin, *rest = steps(step, 0, *peaks, *marks)
        value = first
        for warm, mark in zip(rest[: len(marks)], rest[len(marks) :], strict=True):
            warming = mix(progress(step, begin, warm, high), high, first)
            cooling = decayed(progress(step, warm, mark, high), high, low, "cosine")
            cycle = jnp.where(step < warm, warming, cooling)
            value = jnp.where(step < begin, value, cycle)
            begin, first = mark, low
        return jnp.where(step < begin, value, low)

    return schedule
