"""Cross entropy from hidden states and the head's weight, without the logits."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Integer, ScalarLike

from .._check import at_least, between, known
from .._mask import blank
from .._safe import divide
from ._relative import Relative
from ._statistics import relative


def linear_cross_entropy(
    hidden: Float[ArrayLike, "*batch features"],
    weight: Float[ArrayLike, "..."],
    labels: Integer[ArrayLike, "*batch"],
    *,
    layout: str = "dv",
    bias: Float[ArrayLike, " classes"] | None = None,
    softcap: ScalarLike | None = None,
    scale: ScalarLike = 1.0,
    class_weights: Float[ArrayLike, " classes"] | None = None,
    label_smoothing: ScalarLike = 0.0,
    z_loss: ScalarLike = 0.0,
    where: Bool[ArrayLike, "*batch"] | None = None,
    w_axis: str | None = None,
    implementation: str = "auto",
    workspace_mb: float | int | None = None,
) -> Float[Array, "*batch"]:
    """Cross entropy of `hidden @ weight` without its logits; for a large vocabulary.

    z = scale softcap tanh((hidden @ weight + bias) / softcap),  lse = log sum_v exp z_v
    loss = (1 - label_smoothing) c_y (lse - z_y)
           + label_smoothing mean_v c_v (lse - z_v) + z_loss lse^2

    Args:
      hidden: float[*batch, features], what the head multiplies.
      weight: float[features, classes], or [classes, features] in layout "vd".
      labels: int[*batch] in [0, classes); out of range gives NaN.
      layout: "dv", or "vd" for a tied embedding, which is not copied.
      bias: float[classes]; -inf rules a class out, from the smoothing too.
      softcap: bound > 0 of |z| / scale; None for no bound. May be traced.
      scale: > 0, an inverse temperature. May be traced.
      class_weights: c, float[classes]; None for 1. The mean over a batch is as the
        caller takes it (torch divides by the sum of c_y).
      label_smoothing: in [0, 1], the share of the target spread evenly. May be traced.
      z_loss: >= 0, weight of lse^2, which keeps logits from drifting. May be traced.
      where: bool[*batch], True counts; see `token_statistics` for shifts and padding.
      w_axis: the mesh axis that splits the classes; see `token_statistics`.
      implementation: as in `token_statistics`.
      workspace_mb: as in `token_statistics`.
    Returns:
      f32[*batch], log(classes) at zero weight without z_loss; inf where the label's
      class is ruled out; 0 where masked. All sums are in f32, whatever the dtypes.
    Gradient: smooth in all float arguments, any order and mode; nothing is stopped.
    Cost: that of `token_statistics`: one more product with the weight in a gradient,
      which `linear_cross_entropy_value_and_grad` spares.
    Raises: ValueError for a shape, a hyperparameter or a choice that does not fit.
    Source: Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", 2024,
      arXiv:2411.09009, sec. 4. Differs: XLA cuts by tokens alone; no gradient is
      dropped as small and the vocabulary is not sorted; any order of derivatives.
    Example:
      >>> hidden, weight = jnp.ones((2, 3)), jnp.zeros((3, 5))
      >>> linear_cross_entropy(hidden, weight, jnp.array([0, 4]))  # log 5
      Array([1.6094, 1.6094], dtype=float32)
    """
    between("label_smoothing", label_smoothing, 0, 1)
    at_least("z_loss", z_loss, 0)
    smooth = not is_zero(label_smoothing)
    token = relative(
        hidden,
        weight,
        labels,
        layout=layout,
        bias=bias,
        softcap=softcap,
        scale=scale,
        class_weights=class_weights,
        stats=("total",) if smooth else (),
        where=where,
        w_axis=w_axis,
        implementation=implementation,
        workspace_mb=workspace_mb,
    )
    loss = of_token(token, label_smoothing if smooth else None, z_loss)
    return blank(loss, where)


def is_zero(x: ScalarLike) -> bool:
    """Known to be 0 beforehand, so that what it multiplies may be left out."""
    return known(x) and bool(x == 0)


def of_token(
    token: Relative, label_smoothing: ScalarLike | None, z_loss: ScalarLike
) -> Float[Array, "*batch"]:
    """The loss, from statistics relative to the peak."""
    impossible = token.target == -jnp.inf
    token = jax.tree.map(lambda x: blank(x, ~impossible), token)
    loss = token.lse - token.target
    weighted = token.label_weight is not None
    if weighted:
        loss = token.label_weight * loss
    if label_smoothing is not None:
        even = token.lse - divide(token.total, token.live)
        if weighted:
            even = divide(token.live_weight * token.lse - token.weighted, token.live)
        loss = (1 - label_smoothing) * loss + label_smoothing * even
    log_z = token.peak + token.lse
    loss += z_loss * log_z * log_z  # in this order 0 stays 0 where the square is inf
    return jnp.where(impossible, jnp.inf, loss)
