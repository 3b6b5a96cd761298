"""Pairwise ranking of a list, with weights that care for the top of it.

`rax` has the plain pairwise, listwise and approximate-NDCG losses; here stand the
pair weights of listwise rerankers.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from .._check import above, one_of
from .._mask import at_least_f32, blank
from .._safe import divide

WEIGHTS = ("inverse_rank", "ndcg", "none")


def rank_net(
    scores: Float[ArrayLike, "*batch items"],
    relevance: Float[ArrayLike, "*batch items"],
    *,
    weights: str = "inverse_rank",
    sigma: ScalarLike = 1.0,
    where: Bool[ArrayLike, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """Logistic loss of the pairs in the wrong order, the top pairs above all.

    loss = mean of w_ij log(1 + e^(sigma (s_j - s_i))), i more relevant than j

    w_ij is 1 / (r_i + r_j) with the wanted ranks r = 1, 2, ... for "inverse_rank"; 1
    for "none" (RankNet). For "ndcg" (LambdaRank, NDCG-loss2) it is
    |2^y_i - 2^y_j| / maxDCG  |1/D(d) - 1/D(d + 1)|, with d >= 1 how far apart the
    scores put the two, D(k) = log2(1 + k) and maxDCG that of the wanted order.

    Args:
      scores: float[*batch, items], the model's; of a generating reranker the logits of
        the items' identifier tokens. -inf leaves an item out: padding.
      relevance: float[*batch, items], higher is better; minus the wanted rank, or
        grades >= 0 for "ndcg". Ties make no pair.
      weights: "inverse_rank", "ndcg" or "none".
      sigma: > 0, steepness. May be traced.
      where: bool[*batch], True counts.
    Returns:
      f32[*batch] >= 0; w log 2 at equal scores; 0 for a list without a pair; 0 where
      masked.
    Gradient: smooth in scores and sigma; ranks and weights pass none.
    Cost: the pairs, items^2 numbers a list.
    Raises: ValueError for a shape that does not fit, sigma <= 0 or unknown weights.
    Source: Reddy et al., "FIRST: Faster Improved Listwise Reranking with Single Token
      Decoding", 2024, arXiv:2406.15657. Differs: each list has its own mean over pairs;
      "ndcg" with the natural logarithm, where the official code takes log2; relevance
      ties keep the given order when ranked.
    Example:
      >>> rank_net(jnp.array([0.0, 0.0]), jnp.array([2.0, 1.0]))  # log(2) / 3
      Array(0.231, dtype=float32)
    """
    above("sigma", sigma, 0)
    one_of("weights", weights, WEIGHTS)
    s, y = blank(at_least_f32(scores), where), blank(at_least_f32(relevance), where)
    if s.shape != y.shape:
        raise ValueError(f"relevance: wanted shape {s.shape}, came {y.shape}")
    y = lax.stop_gradient(y)
    live = s != -jnp.inf
    s = jnp.where(live, s, 0)
    better = y[..., :, None] > y[..., None, :]
    pairs = better & live[..., :, None] & live[..., None, :]
    loss = jax.nn.softplus(sigma * (s[..., None, :] - s[..., :, None]))
    w = _pair_weights(lax.stop_gradient(s), y, live, weights)
    total = jnp.sum(jnp.where(pairs, w * loss, 0), axis=(-2, -1))
    count = jnp.sum(pairs, axis=(-2, -1)).astype(total.dtype)
    return blank(divide(total, count), where)


def _pair_weights(
    s: Float[Array, "*batch items"],
    y: Float[Array, "*batch items"],
    live: Bool[Array, "*batch items"],
    how: str,
) -> Float[Array, "*batch items items"]:
    """w_ij; anything where i or j is not live."""
    wanted = _ranks(y, live).astype(s.dtype)
    if how == "inverse_rank":
        return 1 / (wanted[..., :, None] + wanted[..., None, :])
    if how == "none":
        return jnp.ones((*s.shape, s.shape[-1]), s.dtype)
    # Relative to the highest, as 2^128 is infinite.
    top = jnp.max(y, axis=-1, keepdims=True, initial=0, where=live)
    gain = jnp.where(live, jnp.exp2(y - top), 0)
    over = gain - jnp.exp2(-top)
    ideal = jnp.sum(jnp.where(live, over / jnp.log2(1 + wanted), 0), axis=-1)
    ideal = jnp.where(ideal > 0, ideal, 1)[..., None, None]
    place = _ranks(s, live).astype(s.dtype)
    apart = jnp.maximum(jnp.abs(place[..., :, None] - place[..., None, :]), 1)
    discount = 1 / jnp.log2(1 + apart) - 1 / jnp.log2(2 + apart)
    return jnp.abs(gain[..., :, None] - gain[..., None, :]) / ideal * discount


def _ranks(
    x: Float[Array, "*batch items"], live: Bool[Array, "*batch items"]
) -> Int[Array, "*batch items"]:
    """1 for the largest live item, and so on; ties in the given order."""
    above = x[..., None, :] > x[..., :, None]
    earlier = jnp.tri(x.shape[-1], k=-1, dtype=bool)
    tie = (x[..., None, :] == x[..., :, None]) & jnp.broadcast_to(earlier, above.shape)
    return 1 + jnp.sum((above | tie) & live[..., None, :], axis=-1)
