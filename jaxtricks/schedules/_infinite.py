"""The infinite schedule: no budget until one stops, no re-warming on the way."""

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, ScalarLike, Shaped

from .._check import known
from ._phases import (
    Count,
    Shape,
    check_fits,
    check_shape,
    decayed,
    mix,
    progress,
    steps,
    values,
)


def infinite(
    peak: ScalarLike,
    *,
    warmup_steps: Count,
    cooldown_steps: Count,
    total_steps: Count | None = None,
    anneal_steps: Count | None = None,
    shape: Shape = "cosine",
    start: ScalarLike = 0.0,
    constant: ScalarLike | None = None,
    end: ScalarLike | None = None,
) -> optax.Schedule:
    """Warmup, cooldown to a constant for as long as data comes, then a short annealing.

    start -> peak      linear, over W steps
    peak -> constant   by `shape`, over the next C steps
    constant           until T - A, or for ever without T
    constant -> end    constant (end / constant)^x, x = (t - (T - A)) / A, over A steps

    New data resumes from a checkpoint of the constant phase, with no budget set.

    Args:
      peak: the value after warmup. May be traced, as every number here.
      warmup_steps: W.
      cooldown_steps: C.
      total_steps: T, the end of the annealing; None never anneals.
      anneal_steps: A, with W + C + A <= T; None is 10 % of T.
      shape: of the cooldown: cosine, inverse_sqrt, or any other shape of `wsd`.
      start: the value at step 0 when W > 0.
      constant: > 0, the value in between; None is halfway from peak to end.
      end: > 0, the value at T and beyond; None is peak / 10.
    Returns:
      step -> f32[]: start at 0, peak at W (unless C = 0), constant on [W + C, T - A],
      end from T on, each exactly. An array of steps gives an array.
    Gradient: finite in every number; 0 where it has no say.
    Cost: a few scalar operations.
    Raises: ValueError for an unknown shape, phases that do not fit, an annealing
      without total_steps, or a constant or end <= 0.
    Source: Ibrahim et al., "Simple and Scalable Strategies to Continually Pre-train
      Large Language Models", 2024, arXiv:2403.08763, the infinite schedule. Differs:
      the defaults of constant and annealing are ours; inverse_sqrt has steepness 10.
    Example:
      >>> schedule = infinite(1.0, warmup_steps=10, cooldown_steps=40, total_steps=100)
      >>> print(*schedule(jnp.array([5, 10, 30, 70, 95, 100])))
      0.5 1.0 0.775 0.55 0.2345 0.1
    """
    check_shape(shape, {})
    check_shape("exponential", {"constant": constant, "end": end})
    if total_steps is None and anneal_steps is not None:
        raise ValueError("anneal_steps: wanted none without total_steps, came one")
    check_fits("warmup_steps", warmup_steps, float("inf"))
    check_fits("cooldown_steps", cooldown_steps, float("inf"))
    settled = warmup_steps + cooldown_steps
    ends = ()
    if total_steps is not None:
        if known(total_steps) and known(settled) and not total_steps >= settled:
            raise ValueError(f"total_steps: wanted >= {settled}, came {total_steps}")
        anneal = total_steps // 10 if anneal_steps is None else anneal_steps
        check_fits("anneal_steps", anneal, total_steps - settled)
        ends = (total_steps - anneal, total_steps)

    def schedule(step: Shaped[ArrayLike, "*s"]) -> Float[Array, "*s"]:
        high, first = values(peak, start)
        low = high / 10 if end is None else values(peak, end)[1]
        flat = (high + low) / 2 if constant is None else values(peak, constant)[1]
        step, zero, warm, settle, *later = steps(step, 0, warmup_steps, settled, *ends)
        warming = mix(progress(step, zero, warm, high), high, first)
        cooling = decayed(progress(step, warm, settle, high), high, flat, shape)
        value = jnp.where(step < warm, warming, cooling)
        value = jnp.where(step < settle, value, flat)
        if not ends:
            return value
        turn, stop = later
        annealing = decayed(progress(step, turn, stop, high), flat, low, "exponential")
        value = jnp.where(step < turn, value, annealing)
        return jnp.where(step < stop, value, low)

    return schedule
