"""Comp-sum losses: one exponent from sum-exponential over cross entropy to MAE."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Integer, ScalarLike

from .._check import at_least
from .._mask import at_label, at_least_f32, blank
from .._safe import box_cox, divide


def comp_sum(
    logits: Float[ArrayLike, "*batch classes"],
    labels: Integer[ArrayLike, "*batch"],
    *,
    tau: ScalarLike = 1.0,
    where: Bool[ArrayLike, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """Cross entropy with a dial for what a wrong example may cost; for noisy labels.

    loss = ((1/p_y)^(1 - tau) - 1) / (1 - tau), at tau = 1 its limit -log p_y

    tau = 0 is the sum of exponentials, 1 cross entropy, 1 to 2 generalized cross
    entropy with q = tau - 1, 2 half the mean absolute error, 1 - p_y.

    Args:
      logits: float[*batch, classes], unnormalised; -inf rules a class out.
      labels: int[*batch] in [0, classes); out of range gives NaN.
      tau: >= 0. May be traced, through 1 too.
      where: bool[*batch], True counts.
    Returns:
      f32[*batch] in [0, 1/(tau - 1)] for tau > 1, else [0, inf]; 0 where masked.
    Gradient: smooth in logits and tau, any order, nothing is stopped; 0 where the loss
      exceeds the dtype and is inf.
    Cost: cross entropy's.
    Raises: ValueError for a shape that does not fit or a negative tau.
    Source: Mao et al., "Cross-Entropy Loss Functions: Theoretical Analysis and
      Applications", 2023, arXiv:2304.07288, the comp-sum family.
      Differs: the loss itself; the paper's adversarial form is not here.
    Example:
      >>> comp_sum(jnp.zeros((3, 4)), jnp.array([0, 1, 2]), tau=jnp.float32(1.0))
      Array([1.3863, 1.3863, 1.3863], dtype=float32)
      >>> comp_sum(jnp.zeros(4), 0, tau=2.0)  # 1 - 1/4
      Array(0.75, dtype=float32)
    """
    at_least("tau", tau, 0)
    log_p = jax.nn.log_softmax(blank(at_least_f32(logits), where))
    log_p_y = at_label(log_p, blank(labels, where))
    a = jnp.asarray(tau - 1, log_p.dtype)
    # At p_y = 0 and past the dtype the loss is its bound, without a gradient.
    lost = a * log_p_y > np.log(jnp.finfo(log_p.dtype).max)
    lost |= jnp.isneginf(log_p_y)
    loss = -box_cox(blank(log_p_y, ~lost), a)
    bound = jnp.where(a > 0, divide(1.0, a), jnp.inf)
    return blank(jnp.where(lost, bound, loss), where)
