"""Cross entropy with the options people combine: smoothing, z-penalty, masked classes.

optax has the plain forms; this one serves integer and soft targets alike, and label
smoothing, the z-penalty, `where` and classes ruled out by -inf work together.
"""

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Integer, ScalarLike

from .._check import at_least, between, known
from .._mask import at_label, at_least_f32, blank
from .._safe import divide, log
from ..kernels import TokenStatistics
from ._label import label_log_prob
from ._targets import distribution


def cross_entropy(
    logits: Float[ArrayLike, "*batch classes"] | TokenStatistics,
    targets: Integer[ArrayLike, "*batch"]
    | Float[ArrayLike, "*batch classes"]
    | None = None,
    *,
    label_smoothing: ScalarLike = 0.0,
    z_loss: ScalarLike = 0.0,
    classes: int | None = None,
    where: Bool[ArrayLike, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """Minus the log-likelihood of the target; the loss to start every classifier with.

    loss = -sum_k q_k log p_k + z_loss (log sum_k e^logit_k)^2
    q = (1 - label_smoothing) target + label_smoothing / live classes

    Args:
      logits: float[*batch, classes], unnormalised; -inf rules a class out: it takes no
        smoothing mass, and target mass 0 on it costs 0. Or the
        `kernels.token_statistics` of hidden states, which know the labels; with
        stats=("total",) for label_smoothing.
      targets: int[*batch] in [0, classes), out of range gives NaN; or
        float[*batch, classes], the probability of each class. None with statistics.
      label_smoothing: in [0, 1], the share of the target spread evenly over the classes
        not ruled out. May be traced.
      z_loss: >= 0, weight of the squared log-partition, which keeps logits from
        drifting; PaLM used 1e-4. May be traced.
      classes: how many are not ruled out; for label_smoothing of statistics, which do
        not tell, and for nothing else.
      where: bool[*batch], True counts.
    Returns:
      f32[*batch], >= 0 where the target sums to 1; log(classes) at zero logits without
      z_loss; inf where the target has mass on a class ruled out; 0 where masked.
    Gradient: smooth in logits, soft targets and both hyperparameters, any order;
      nothing is stopped. 0 where the loss is inf.
    Cost: one softmax, and a sum over the logits for each option.
    Raises: ValueError for a shape that does not fit, label_smoothing outside [0, 1], a
      negative z_loss, or statistics without what label_smoothing needs.
    Source: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision",
      2015, arXiv:1512.00567, section 7; Chowdhery et al., "PaLM: Scaling Language
      Modeling with Pathways", 2022, arXiv:2204.02311, section 5. Differs: smoothing
      mass goes to the classes not ruled out, instead of all.
    Example:
      >>> cross_entropy(jnp.zeros((1, 2)), jnp.array([0]))
      Array([0.6931], dtype=float32)
      >>> cross_entropy(jnp.zeros(2), jnp.array([0.5, 0.5]), z_loss=1.0)
      Array(1.1736, dtype=float32)
    """
    between("label_smoothing", label_smoothing, 0, 1)
    at_least("z_loss", z_loss, 0)
    if isinstance(logits, TokenStatistics):
        nll = -label_log_prob(logits, targets, where)
        return _of_statistics(nll, logits, label_smoothing, z_loss, classes, where)
    if targets is None:
        raise ValueError("targets: wanted them beside logits, came None")
    logits, targets = blank(at_least_f32(logits), where), blank(targets, where)
    # Shifted by the peak, so that nothing overflows; exp makes 0 of what is ruled out.
    peak = lax.stop_gradient(jnp.max(logits, axis=-1))
    some = peak != -jnp.inf
    peak = blank(peak, some)
    log_z = blank(log(jnp.sum(jnp.exp(logits - peak[..., None]), axis=-1)), some)
    live = logits != -jnp.inf
    shifted = blank(logits - peak[..., None], live)  # no 0 * inf
    if targets.ndim < logits.ndim:
        own = at_label(logits, targets)
        impossible = jnp.isneginf(own)
        loss = log_z - (blank(own, ~impossible) - peak)
    else:
        targets = distribution(targets, logits)
        impossible = jnp.any((targets > 0) & ~live, axis=-1)
        loss = jnp.sum(targets * (log_z[..., None] - shifted), axis=-1)
    if not (known(label_smoothing) and label_smoothing == 0):  # a third of the time
        count = jnp.sum(live, axis=-1).astype(logits.dtype)
        even = log_z - divide(jnp.sum(shifted, axis=-1), count)
        loss = (1 - label_smoothing) * loss + label_smoothing * even
    log_z += peak
    loss += z_loss * log_z * log_z  # in this order 0 stays 0 where the square is inf
    return blank(jnp.where(impossible, jnp.inf, loss), where)


def _of_statistics(
    nll: Float[Array, "*batch"],
    token: TokenStatistics,
    label_smoothing: ScalarLike,
    z_loss: ScalarLike,
    classes: int | None,
    where: Bool[ArrayLike, "*batch"] | None,
) -> Float[Array, "*batch"]:
    """The options, for statistics in the place of logits."""
    some = nll < jnp.inf
    log_z = blank(blank(at_least_f32(token.lse), where), some | jnp.isnan(nll))
    loss = blank(nll, ~jnp.isposinf(nll))
    if not (known(label_smoothing) and label_smoothing == 0):
        if token.total is None or classes is None:
            raise ValueError(
                "label_smoothing: of TokenStatistics it wanted stats=('total',) and "
                f"classes, came total={token.total} and classes={classes}"
            )
        total = blank(blank(at_least_f32(token.total), where), some)
        loss = (1 - label_smoothing) * loss + label_smoothing * (
            log_z - total / classes
        )
    loss += z_loss * log_z * log_z
    return blank(jnp.where(jnp.isposinf(nll), jnp.inf, loss), where)
