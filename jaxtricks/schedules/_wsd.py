"""Warmup-stable-decay: constant for most of the run, then a short steep decay.

The stable phase travels along the valley, the decay drops to its floor. WSD-S decays
before each of several budgets and resumes the peak from the decayed parameters.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, ScalarLike, Shaped

from .._check import known
from ._phases import (
    Count,
    Shape,
    check_budgets,
    check_fits,
    check_shape,
    decayed,
    mix,
    progress,
    steps,
    values,
)


def wsd(
    peak: ScalarLike,
    *,
    total_steps: Count,
    warmup_steps: Count | None = None,
    decay_steps: Count | None = None,
    shape: Shape = "inverse",
    start: ScalarLike = 0.0,
    end: ScalarLike | None = None,
) -> optax.Schedule:
    """Linear warmup, constant peak, decay over the last steps; for one known budget.

    With x = (t - (T - D)) / D in [0, 1] over the decay, the value is
      inverse         1 / ((1 - x) / peak + x / end), linear in 1 / value
      exponential     peak (end / peak)^x
    or end + (peak - end) m(x) with m =
      linear 1 - x    cosine c = (1 + cos(pi x)) / 2    mirror_cosine 2 (1 - x) - c
      square 1 - x^2  sqrt 1 - sqrt(x)                  lowered_linear 0.7 (1 - x)
      inverse_sqrt    1 - h(x) / h(1), h(x) = 1 / sqrt(1 + 10 x) - 1

    Args:
      peak: the stable value. May be traced, as every number here.
      total_steps: T > 0, the budget in updates.
      warmup_steps: W; None is 1 % of T.
      decay_steps: D, with W + D <= T; None is 10 % of T.
      shape: a name above, or a function x -> m of arrays.
      start: the value at step 0 when W > 0.
      end: the value at T and beyond; None is peak / 10.
    Returns:
      step -> f32[]: start at 0, peak on [W, T - D], end from T on, each exactly;
      lowered_linear drops at T - D already. An array of steps gives an array.
    Gradient: finite in every number; 0 where it has no say.
    Cost: a few scalar operations.
    Raises: ValueError for an unknown shape, phases that do not fit, or an end <= 0
      with inverse or exponential.
    Source: Wen et al., "Understanding Warmup-Stable-Decay Learning Rates: A River
      Valley Loss Landscape Perspective", 2024, arXiv:2410.05192, the inverse decay;
      Dremov et al., "Training Dynamics of the Cooldown Stage in Warmup-Stable-Decay
      Learning Rate Scheduler", 2025, arXiv:2508.01483, the shapes linear to
      lowered_linear. Differs: exponential and inverse_sqrt are added.
    Example:
      >>> schedule = wsd(1.0, total_steps=100, warmup_steps=10, decay_steps=20)
      >>> print(*schedule(jnp.array([0, 5, 50, 90, 100])))
      0.0 0.5 1.0 0.1818 0.1
    """
    if known(total_steps) and not total_steps > 0:
        raise ValueError(f"total_steps: wanted > 0, came {total_steps}")
    return wsd_s(
        peak,
        budgets=(total_steps,),
        warmup_steps=warmup_steps,
        decay_steps=decay_steps,
        shape=shape,
        start=start,
        end=end,
    )


def wsd_s(
    peak: ScalarLike,
    *,
    budgets: Count | Sequence[Count],
    warmup_steps: Count | None = None,
    decay_steps: Count | Sequence[Count] | None = None,
    shape: Shape = "inverse",
    start: ScalarLike = 0.0,
    end: ScalarLike | None = None,
) -> optax.Schedule:
    """WSD for several budgets in one run; each ends in a good checkpoint, used onwards.

    Over the D_k updates before T_k the value decays from peak to end, as in `wsd`; the
    update after T_k resumes the peak from the decayed parameters, without a warmup.

    Args:
      peak: the stable value. May be traced, as every number here.
      budgets: T_1 < T_2 < ..., in updates.
      warmup_steps: W, once, at the start; None is 1 % of T_1.
      decay_steps: D, or D_1, D_2, ...; None is 10 % of each T_k.
      shape: the shape of every decay, as in `wsd`.
      start: the value at step 0 when W > 0.
      end: the value that every decay heads for; None is peak / 10.
    Returns:
      step -> f32[]: peak again at T_k, whose checkpoint is the parameters after T_k
      updates; end from the last budget on. With one budget it is `wsd`.
    Gradient: finite in every number; 0 where it has no say.
    Cost: a few scalar operations a budget.
    Raises: ValueError for budgets that do not increase, phases that do not fit, an
      unknown shape, or an end <= 0 with inverse or exponential.
    Source: Wen et al., "Understanding Warmup-Stable-Decay Learning Rates: A River
      Valley Loss Landscape Perspective", 2024, arXiv:2410.05192, WSD-S. Differs: none.
    Example:
      >>> schedule = wsd_s(1.0, budgets=(50, 100), warmup_steps=0, decay_steps=10)
      >>> print(*schedule(jnp.array([40, 45, 50, 95, 100])))
      1.0 0.1818 1.0 0.1818 0.1
    """
    check_shape(shape, {"end": end})
    marks = check_budgets(budgets)
    warmup = marks[0] // 100 if warmup_steps is None else warmup_steps
    check_fits("warmup_steps", warmup, marks[0])
    if decay_steps is None:
        decays = tuple(mark // 10 for mark in marks)
    elif isinstance(decay_steps, Sequence):
        decays = tuple(decay_steps)
    else:
        decays = (decay_steps,) * len(marks)
    if len(decays) != len(marks):
        raise ValueError(f"decay_steps: wanted 1 or {len(marks)}, came {len(decays)}")
    for begin, mark, decay in zip((warmup, *marks), marks, decays, strict=False):
        check_fits("decay_steps", decay, mark - begin)
    turns = [mark - decay for mark, decay in zip(marks, decays, strict=True)]

    def schedule(step: Shaped[ArrayLike, "*s"]) -> Float[Array, "*s"]:
        high, first = values(peak, start)
        low = high / 10 if end is None else values(peak, end)[1]
        step, zero, begin, *rest = steps(step, 0, warmup, *turns, *marks)
        value = mix(progress(step, zero, begin, high), high, first)
        for turn, mark in zip(rest[: len(marks)], rest[len(marks) :], strict=True):
            decaying = decayed(progress(step, turn, mark, high), high, low, shape)
            cycle = jnp.where(step < turn, high, decaying)
            value, begin = jnp.where(step < begin, value, cycle), mark
        return jnp.where(step < begin, value, low)

    return schedule
