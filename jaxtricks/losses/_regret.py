"""Regret: what a sequence of decisions lost to the best one in hindsight."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from .._mask import at_least_f32, blank


def regret(
    policies: Float[ArrayLike, "*batch steps actions"],
    costs: Float[ArrayLike, "*batch steps actions"],
    *,
    where: Bool[ArrayLike, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """Expected cost of the policies less that of the best fixed action; label-free.

    regret = sum_t <costs_t, policies_t> - min_a sum_t costs_t,a

    The regret loss of a model that plays policies_t after seeing costs_1 to costs_t-1
    is an increasing h(regret), weighted towards the sequences where it is largest:
    reduce.mean(h(r), weights=weighting.kl_dro(r, temperature=1 / k)), k = 0 the mean.

    Args:
      policies: float[*batch, steps, actions], a distribution over actions a step.
      costs: float[*batch, steps, actions]; a step whose costs are all 0 adds nothing,
        as padding should.
      where: bool[*batch], True counts.
    Returns:
      f32[*batch], at most 0 for the best fixed action; 0 where masked.
    Gradient: linear in policies; in costs too, between ties of the best action, which
      share it at one.
    Cost: one pass.
    Raises: ValueError for a shape that does not fit.
    Source: Park et al., "Do LLM Agents Have Regret? A Case Study in Online Learning and
      Games", 2024, arXiv:2403.16843, the regret inside the regret loss. Differs: the
      simplex alone; h and the weights are the caller's, the paper leaves them open.
    Example:
      >>> costs = jnp.array([[0.0, 1.0], [0.0, 1.0]])
      >>> regret(jnp.full((2, 2), 0.5), costs)  # 1 - 0
      Array(1., dtype=float32)
    """
    policies, costs = (blank(at_least_f32(x), where) for x in (policies, costs))
    if policies.ndim < 2:
        raise ValueError(f"policies: wanted steps and actions, came {policies.shape}")
    if policies.shape != costs.shape:
        raise ValueError(f"costs: wanted shape {policies.shape}, came {costs.shape}")
    paid = jnp.sum(policies * costs, axis=(-2, -1))
    best = jnp.min(jnp.sum(costs, axis=-2), axis=-1)
    return blank(paid - best, where)
