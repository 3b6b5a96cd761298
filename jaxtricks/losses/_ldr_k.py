"""LDR-k: the k worst rivals, from the hinge's one to all of them."""

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Integer, ScalarLike

from .._mask import at_label, at_least_f32, blank, one_hot


def ldr_k(
    logits: Float[ArrayLike, "*batch classes"],
    labels: Integer[ArrayLike, "*batch"],
    *,
    k: int,
    margin: ScalarLike = 1.0,
    where: Bool[ArrayLike, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """The mean margin to the k worst classes; a hinge loss for top-k accuracy.

    loss = 1/k sum of the k largest delta_j,  delta_j = f_j - f_y + margin [j != y]
         = max over p in the simplex with p_j <= 1/k of sum_j p_j delta_j

    delta_y = 0 is among them: k = 1 is the Crammer-Singer hinge, k = classes the mean
    delta, which is linear in the logits.

    Args:
      logits: float[*batch, classes], unnormalised; -inf rules a class out. Classes
        stay on one device: they are sorted.
      labels: int[*batch] in [0, classes); out of range gives NaN.
      k: in [1, classes], how many; of fewer classes not ruled out, all of those.
      margin: added to every rival's logit. May be traced.
      where: bool[*batch], True counts.
    Returns:
      f32[*batch], >= 0 for k = 1; inf for a label ruled out; 0 where masked.
    Gradient: linear in the logits between ties; at a tie the first class in order is
      taken. 0 where the loss is inf.
    Cost: a top-k of the logits.
    Raises: ValueError for a shape that does not fit or a k outside [1, classes].
    Source: Zhu et al., "Label Distributionally Robust Losses for Multi-class
      Classification: Consistency, Robustness and Adaptivity", 2021, arXiv:2112.14869,
      the LDR-k loss. Differs: on raw logits; `ldr_kl` has the normalised ones.
    Example:
      >>> ldr_k(jnp.array([2.0, 1.0, 0.5, -3.0]), 0, k=2)  # deltas 0, 0, -0.5, -4
      Array(0., dtype=float32)
      >>> ldr_k(jnp.array([2.0, 1.0, 0.5, -3.0]), 1, k=2)  # (2 + 0.5) / 2
      Array(1.25, dtype=float32)
    """
    f = blank(at_least_f32(logits), where)
    labels = blank(labels, where)
    if not 1 <= k <= f.shape[-1]:
        raise ValueError(f"k: wanted in [1, {f.shape[-1]}], came {k}")
    live = f != -jnp.inf
    f = blank(f, live)
    rival = ~one_hot(labels, f.shape)
    delta = f - at_label(f, labels)[..., None] + margin * rival.astype(f.dtype)
    order = jnp.argsort(-lax.stop_gradient(jnp.where(live, delta, -jnp.inf)), axis=-1)
    rank = jnp.argsort(order, axis=-1)
    taken = live & (rank < k)
    count = jnp.maximum(jnp.sum(taken, axis=-1), 1).astype(f.dtype)
    loss = jnp.sum(blank(delta, taken), axis=-1) / count
    loss = jnp.where(jnp.any(live & jnp.isnan(delta), axis=-1), jnp.nan, loss)
    impossible = jnp.any(~live & ~rival, axis=-1)
    return blank(jnp.where(impossible, jnp.inf, loss), where)
