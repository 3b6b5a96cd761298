"""Learned optimal transport: a network guesses the dual, and Sinkhorn finishes it."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.nn import logsumexp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, ScalarLike

from .. import _safe as safe
from .._check import above, at_least, of_shape
from .._mask import at_least_f32


class SinkhornPotentials(NamedTuple):
    """What `sinkhorn_potentials` finds."""

    f: Float[Array, " n"]
    g: Float[Array, " m"]
    plan: Float[Array, "n m"]
    error: Float[Array, ""]  # sum_i |row sum_i of the plan - a_i|
    iterations: Int[Array, ""]  # until the error was below the tolerance


def dual_potential(
    f: Float[ArrayLike, " n"],
    b: Float[ArrayLike, " m"],
    cost: Float[ArrayLike, "n m"],
    *,
    epsilon: ScalarLike = 0.01,
) -> Float[Array, " m"]:
    """The other potential: half a step of Sinkhorn, after which b is met exactly.

    g_j = epsilon log b_j - epsilon log sum_i e^((f_i - C_ij) / epsilon)

    Args:
      f: float[n].
      b: float[m] >= 0, of sum 1.
      cost: float[n, m].
      epsilon: > 0, of the entropy; 0.01 as in the paper's experiments with images.
    Returns:
      f32[m]; -inf where b is 0.
    Gradient: smooth in all where b > 0.
    Cost: one pass over the costs.
    Raises: ValueError for sizes that disagree or epsilon <= 0.
    Source: Amos et al., "Meta Optimal Transport", 2022, arXiv:2206.05262.
      Differs: none.
    Example:
      >>> print(dual_potential(jnp.zeros(2), jnp.ones(2) / 2, jnp.eye(2), epsilon=1.0))
      [-1.0064 -1.0064]
    """
    f, b, cost = at_least_f32(f), at_least_f32(b), at_least_f32(cost)
    above("epsilon", epsilon, 0)
    of_shape((*f.shape, *b.shape), cost=cost)
    reach = logsumexp((f[:, None] - cost) / epsilon, axis=0)
    return jnp.multiply(epsilon, safe.log(b) - reach)


def sinkhorn_dual(
    f: Float[ArrayLike, " n"],
    g: Float[ArrayLike, " m"],
    a: Float[ArrayLike, " n"],
    b: Float[ArrayLike, " m"],
    cost: Float[ArrayLike, "n m"],
    *,
    epsilon: ScalarLike = 0.01,
) -> Float[Array, ""]:
    """The dual objective of entropic transport; its maximum is the cost of transport.

    J = <f, a> + <g, b> - epsilon sum_ij e^((f_i + g_j - C_ij) / epsilon) + epsilon

    Args:
      f, g: float[n], float[m], the potentials.
      a, b: float[n], float[m] >= 0, of sum 1.
      cost: float[n, m].
      epsilon: > 0, of the entropy.
    Returns:
      f32[], at most min_P <P, C> + epsilon sum P (log P - 1) + epsilon.
    Gradient: smooth; in f it is a minus the row sums of the plan.
    Cost: one pass over the costs.
    Raises: ValueError for sizes that disagree or epsilon <= 0.
    Source: Amos et al., "Meta Optimal Transport", 2022, arXiv:2206.05262.
      Differs: + epsilon, as in OTT: a plan of mass 1 then adds nothing.
    Example:
      >>> half = jnp.ones(2) / 2
      >>> print(sinkhorn_dual(half, half, half, half, jnp.ones((2, 2)), epsilon=1.0))
      -2.
    """
    f, g, a, b = map(at_least_f32, (f, g, a, b))
    cost = at_least_f32(cost)
    above("epsilon", epsilon, 0)
    of_shape(f.shape, a=a)
    of_shape(g.shape, b=b)
    of_shape((*f.shape, *g.shape), cost=cost)
    plan = _plan(f, g, cost, epsilon)
    linear = jnp.sum(_where(a, f)) + jnp.sum(_where(b, g))
    return linear - epsilon * jnp.sum(plan) + epsilon


def meta_ot(
    f: Float[ArrayLike, " n"],
    a: Float[ArrayLike, " n"],
    b: Float[ArrayLike, " m"],
    cost: Float[ArrayLike, "n m"],
    *,
    epsilon: ScalarLike = 0.01,
) -> Float[Array, ""]:
    """The loss of a network that predicts the potential of a transport problem.

    loss = -J(f, g(f)),   f = network(a, b)

    No solution is needed to train it: the dual is what it maximises. Map it over
    problems by `vmap`, and start `sinkhorn_potentials` from what it predicts.

    Args:
      f: float[n], predicted.
      a, b: float[n], float[m] >= 0, of sum 1.
      cost: float[n, m].
      epsilon: > 0, of the entropy; 0.01.
    Returns:
      f32[]; least, minus the cost of transport, where f is optimal.
    Gradient: in f, the row sums of the plan minus a; through g nothing is lost.
    Cost: two passes over the costs.
    Raises: ValueError for sizes that disagree or epsilon <= 0.
    Source: Amos et al., "Meta Optimal Transport", 2022, arXiv:2206.05262.
      Differs: discrete measures alone; not the continuous form with convex networks.
    Example:
      >>> half = jnp.ones(2) / 2
      >>> print(meta_ot(jnp.zeros(2), half, half, 1 - jnp.eye(2), epsilon=1.0))
      1.0064
    """
    g = dual_potential(f, b, cost, epsilon=epsilon)
    return -sinkhorn_dual(f, g, a, b, cost, epsilon=epsilon)


def sinkhorn_potentials(
    a: Float[ArrayLike, " n"],
    b: Float[ArrayLike, " m"],
    cost: Float[ArrayLike, "n m"],
    *,
    start: Float[ArrayLike, " n"] | None = None,
    epsilon: ScalarLike = 0.01,
    steps: int = 1000,
    tolerance: ScalarLike = 1e-3,
) -> SinkhornPotentials:
    """Sinkhorn's iterations on potentials, from a guess, until a tolerance is met.

    f_i = epsilon log a_i - epsilon log sum_j e^((g_j - C_ij) / epsilon), g likewise

    Args:
      a, b: float[n], float[m] >= 0, of sum 1.
      cost: float[n, m].
      start: float[n], f; 0 by default, or a network's.
      epsilon: > 0, of the entropy; 0.01.
      steps: at most so many, >= 0.
      tolerance: of the row sums' error; 0.001 as OTT's default.
    Returns:
      SinkhornPotentials(f, g, plan, error, iterations): 0 iterations where the start
      is good enough.
    Gradient: that of the last step taken, the number of steps held; differentiate
      `sinkhorn_dual` there, or use `implicit`.
    Cost: `steps` passes over the costs, whether or not they are needed.
    Raises: ValueError for sizes that disagree, epsilon <= 0 or steps < 0.
    Source: Amos et al., "Meta Optimal Transport", 2022, arXiv:2206.05262.
      Differs: a scan that holds still when it is done.
    Example:
      >>> half = jnp.ones(2) / 2
      >>> found = sinkhorn_potentials(half, half, 1 - jnp.eye(2), epsilon=1.0)
      >>> print(found.plan[0], found.iterations)
      [0.3655 0.1345] 0
    """
    a, b, cost = at_least_f32(a), at_least_f32(b), at_least_f32(cost)
    at_least("steps", steps, 0)
    f = jnp.zeros_like(a) if start is None else at_least_f32(start)
    of_shape(a.shape, start=f)

    def error(f, g):
        return jnp.sum(jnp.abs(jnp.sum(_plan(f, g, cost, epsilon), axis=1) - a))

    def step(carry, _):
        f, g, count = carry
        wrong = lax.stop_gradient(error(f, g)) > tolerance
        nearer = dual_potential(g, a, cost.T, epsilon=epsilon)
        other = dual_potential(nearer, b, cost, epsilon=epsilon)
        f, g = jnp.where(wrong, nearer, f), jnp.where(wrong, other, g)
        return (f, g, count + wrong.astype(jnp.int32)), None

    g = dual_potential(f, b, cost, epsilon=epsilon)
    first = (f, g, jnp.zeros([], jnp.int32))
    (f, g, count), _ = lax.scan(step, first, length=steps)
    return SinkhornPotentials(f, g, _plan(f, g, cost, epsilon), error(f, g), count)


def _plan(f, g, cost, epsilon):
    return jnp.exp((f[:, None] + g[None, :] - cost) / epsilon)


def _where(mass, potential):
    """mass * potential, 0 where there is no mass and the potential is -inf."""
    live = mass > 0
    return jnp.where(live, mass * jnp.where(live, potential, 0), 0)
