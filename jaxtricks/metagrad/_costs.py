"""What a gradient through T steps takes, from the shapes of one step alone."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.extend.core as core
from jaxtyping import PyTree

from .._check import at_least
from ._blocks import evaluations, stored, width

MEGA = 10**6


class Cost(NamedTuple):
    """Of a gradient under one policy."""

    policy: str
    branching: int | None  # of "replay"
    carries: int  # stored at the worst moment
    evaluations: int  # steps that run in a gradient
    bytes: int  # on the device, an estimate
    host: int  # bytes in the host's memory
    compiled: int | None = None  # bytes, what the compiled gradient's temporaries take


class Sizes(NamedTuple):
    """Bytes."""

    carry: int
    again: int  # of the carry, what a step needs to run again for its gradient
    step: int  # what a step stores that is not of its inputs
    x: int  # what it reads


def count(xs: PyTree, length: int | None) -> int:
    """T."""
    at_least("length", length, 0)
    return length if length is not None else jax.tree.leaves(xs)[0].shape[0]


def sizes(step: Callable, init: PyTree, xs: PyTree) -> Sizes:
    """From what `jax.vjp` of one step keeps, by tracing it."""

    def first(x):
        one = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
        return jax.eval_shape(lambda x: x[0], x) if x.shape[0] else one

    carry = jax.eval_shape(lambda carry: carry, init)  # with the shardings of a mesh
    x = jax.tree.map(first, xs)
    whole, read = (sum(map(_nbytes, jax.tree.leaves(part))) for part in (carry, x))
    (again, _), (_, made) = (_kept(f, carry, x) for f in (jax.checkpoint(step), step))
    return Sizes(whole, again, made, read)


def _kept(step: Callable, carry: PyTree, x: PyTree) -> tuple[int, int]:
    """Bytes that a step's derivative keeps: of the carry, and of what it computed."""

    def residuals(carry, x):
        return jax.tree.leaves(jax.vjp(step, carry, x)[1])

    program = jax.make_jaxpr(residuals)(carry, x).jaxpr
    known = len(jax.tree.leaves(carry))
    given = program.invars[:known]  # xs are there anyway
    kept = {v for v in program.outvars if not isinstance(v, core.Literal)}
    made = kept.difference(program.invars, program.constvars)
    return (
        sum(_nbytes(v.aval) for v in kept.intersection(given)),
        sum(_nbytes(v.aval) for v in made),
    )


def _nbytes(x) -> int:
    return math.prod(x.shape) * x.dtype.itemsize


def cost(policy: str, branching: int | None, steps: int, size: Sizes) -> Cost:
    """What `scan` takes under a policy.

    Beside what is stored: what one step computes.
    """
    parts = width(policy, branching or 2, steps)
    if policy == "none":
        kept = steps * size.step
        return Cost(policy, None, 0, steps, kept, 0)
    if policy == "offload":
        host = steps * size.again
        return Cost(policy, None, steps, 2 * steps, size.step, host)
    kept = stored(steps, parts, size.carry, size.again, size.x)
    carries = stored(steps, parts, 1, 1)
    runs = evaluations(steps, parts)
    return Cost(policy, branching, carries, runs, kept + size.step, 0)


def cheapest(budget_mb: float | int, steps: int, size: Sizes) -> Cost:
    """Of "none", "step" and "replay" with any k, what runs the fewest steps within a
    budget, and of those what takes the least.
    """
    at_least("budget_mb", budget_mb, 0)
    widest = max(math.isqrt(steps) + 1, 2)
    several = [*range(2, min(widest, 256)), widest]
    choices = [
        cost("none", None, steps, size),
        cost("step", None, steps, size),
        *(cost("replay", k, steps, size) for k in several),
    ]
    within = [c for c in choices if c.bytes <= budget_mb * MEGA]
    if not within:
        least = min(choices, key=lambda c: c.bytes)
        wanted = math.ceil(least.bytes / MEGA * 100) / 100
        how = f' (policy "replay", branching {least.branching})'
        raise ValueError(
            f"budget_mb: wanted >= {wanted} MB, what {steps} steps take at the least"
            f"{how if least.branching else ''}, came {budget_mb}"
        )
    return min(within, key=lambda c: (c.evaluations, c.bytes))


def chosen(
    budget_mb: float | int, step: Callable, init: PyTree, xs: PyTree, length: int | None
) -> tuple[str, int]:
    """(policy, branching) for a budget."""
    found = cheapest(budget_mb, count(xs, length), sizes(step, init, xs))
    return found.policy, found.branching or 2
