"""Log-probability and entropy of tokens from hidden states, without the logits."""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Integer, ScalarLike

from .._check import above, known
from .._mask import blank
from ._statistics import relative


class LogProb(NamedTuple):
    """Of a token."""

    log_prob: Float[Array, "*batch"]  # log p_label
    entropy: Float[Array, "*batch"]  # -sum_v p_v log p_v


def linear_logprob(
    hidden: Float[ArrayLike, "*batch features"],
    weight: Float[ArrayLike, "..."],
    labels: Integer[ArrayLike, "*batch"],
    *,
    temperature: ScalarLike = 1.0,
    layout: str = "dv",
    bias: Float[ArrayLike, " classes"] | None = None,
    softcap: ScalarLike | None = None,
    where: Bool[ArrayLike, "*batch"] | None = None,
    w_axis: str | None = None,
    implementation: str = "auto",
    workspace_mb: float | int | None = None,
) -> LogProb:
    """log p(label) and the entropy of p; for policy gradients and preference losses.

    z = softcap tanh((hidden @ weight + bias) / softcap) / temperature,  p = softmax(z)
    log_prob = z_label - lse,   entropy = lse - E_p[z]

    Args:
      hidden: float[*batch, features], what the head multiplies.
      weight: float[features, classes], or [classes, features] in layout "vd".
      labels: int[*batch] in [0, classes), the actions; out of range gives NaN.
      temperature: > 0, that of sampling. May be traced.
      layout, bias, softcap, where, w_axis, implementation, workspace_mb: as in
        `token_statistics`.
    Returns:
      LogProb of f32[*batch]: log_prob <= 0, -inf for a class ruled out; entropy in
      [0, log classes], 0 where all are ruled out; 0 where masked.
    Gradient: smooth in all float arguments, any order and mode; nothing is stopped.
    Cost: that of `token_statistics`; an entropy that nobody uses costs nothing in jit.
    Raises: ValueError for a shape, a hyperparameter or a choice that does not fit.
    Source: Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", 2024,
      arXiv:2411.09009, sec. 4. Differs: the entropy comes with it; no gradient filter.
    Example:
      >>> token = linear_logprob(jnp.ones((1, 3)), jnp.zeros((3, 5)), jnp.array([4]))
      >>> print(token.log_prob, token.entropy)  # -log 5, log 5
      [-1.6094] [1.6094]
    """
    above("temperature", temperature, 0)
    token = relative(
        hidden,
        weight,
        labels,
        layout=layout,
        bias=bias,
        softcap=softcap,
        scale=inverse(temperature),
        stats=("mean",),
        where=where,
        w_axis=w_axis,
        implementation=implementation,
        workspace_mb=workspace_mb,
    )
    never = token.target == -jnp.inf
    log_prob = jnp.where(never, 0, token.target) - jnp.where(never, 0, token.lse)
    some = token.lse != -jnp.inf  # classes that are not ruled out
    entropy = jnp.where(some, token.lse, 0) - jnp.where(some, token.mean, 0)
    log_prob = jnp.where(never, -jnp.inf, log_prob)
    return LogProb(blank(log_prob, where), blank(entropy, where))


def inverse(temperature: ScalarLike) -> ScalarLike:
    """1 / temperature, a Python 1 if it is known to be 1."""
    if known(temperature) and temperature == 1:
        return 1.0
    return 1 / jnp.asarray(temperature)
