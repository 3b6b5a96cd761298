"""LoLCATs' feature map, whose products imitate softmax weights, and how it is trained.

`hybrid_window_linear_attention` is the attention that uses it.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, ScalarLike

from .._check import above, at_least
from .._mask import at_least_f32, blank
from ._blocks import computing_dtype, per_head


def hedgehog_feature_map(
    x: Float[ArrayLike, "*batch length features"],
    weight: Float[ArrayLike, "..."],
    *,
    eps: ScalarLike = 1e-12,
    where: Bool[ArrayLike, "*batch length"] | None = None,
) -> Float[Array, "*batch length maps"]:
    """Learned positive features whose products imitate softmax weights; for q and k.

    phi(x) = max([softmax(x W), softmax(-x W)], eps)

    Args:
      x: float[*batch, length, features], queries or keys, heads among the batch axes.
      weight: float[*heads, features, half] with heads that end the batch axes; queries
        and keys have one each. The released models have half = 64.
      eps: least feature, > 0, so that no sum of products is 0. May be traced.
      where: bool[*batch, length], True counts.
    Returns:
      f32[*batch, length, 2 half] in [eps, 1], each half of sum 1; 1 / half at x = 0;
      0 where masked.
    Gradient: smooth but where a feature meets eps; 0 for one below.
    Cost: one product with the weight.
    Raises: ValueError for a shape that does not fit or eps <= 0.
    Source: Zhang et al., "LoLCATs: On Low-Rank Linearizing of Large Language Models",
      2024, arXiv:2410.10254, Hedgehog with the released eps. Differs: none.
    Example:
      >>> weight = jnp.array([[0.0, jnp.log(3.0)]])
      >>> hedgehog_feature_map(jnp.array([[1.0]]), weight).round(4)
      Array([[0.25, 0.75, 0.75, 0.25]], dtype=float32)
    """
    above("eps", eps, 0)
    x, weight = jnp.asarray(x), jnp.asarray(weight)
    dtype = computing_dtype(x, weight)
    if weight.ndim < 2 or weight.shape[-2] != x.shape[-1]:
        raise ValueError(
            f"weight: wanted [*heads, features, half] beside x {list(x.shape)}, "
            f"came {list(weight.shape)}"
        )
    weight = per_head("weight", weight, x, dtype, after=weight.shape[-2:])
    x = blank(x, where).astype(dtype)
    half = jnp.einsum("...lf,...fh->...lh", x, weight)
    both = jnp.concatenate([jax.nn.softmax(half), jax.nn.softmax(-half)], axis=-1)
    return blank(jnp.maximum(both, jnp.asarray(eps, dtype)), where)


def attention_transfer_loss(
    outputs: Float[ArrayLike, "*batch features"],
    targets: Float[ArrayLike, "*batch features"],
    *,
    factor: ScalarLike = 1000.0,
    where: Bool[ArrayLike, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """How far linearised attention is from softmax attention; trains the feature maps.

    loss = factor mean_i (outputs_i - targets_i)^2

    The teacher sees the same q, k and v. The paper averages over positions, heads,
    examples and layers, and trains the feature maps and window factors alone.

    Args:
      outputs: float[*batch, features], what an attention head of the student gives.
      targets: float[*batch, features], what the softmax attention gives.
      factor: weight >= 0; 1000 in the released configurations. May be traced.
      where: bool[*batch], True counts.
    Returns:
      f32[*batch] in [0, inf); 0 at equality and where masked.
    Gradient: a square in outputs; stopped at targets.
    Cost: none.
    Raises: ValueError for a shape that does not fit or a negative factor.
    Source: Zhang et al., "LoLCATs: On Low-Rank Linearizing of Large Language Models",
      2024, arXiv:2410.10254, attention transfer, with the released factor. Differs:
      nothing is averaged but the features.
    Example:
      >>> attention_transfer_loss(jnp.array([[0.1, 0.0]]), jnp.zeros((1, 2)))
      Array([5.], dtype=float32)
    """
    at_least("factor", factor, 0)
    outputs, targets = (blank(at_least_f32(x), where) for x in (outputs, targets))
    if outputs.shape != targets.shape:
        raise ValueError(
            f"targets: wanted {list(outputs.shape)} as outputs, "
            f"came {list(targets.shape)}"
        )
    apart = jnp.square(outputs - lax.stop_gradient(targets))
    return blank(factor * jnp.mean(apart, axis=-1), where)
