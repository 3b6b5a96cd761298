"""WiSE-FT and BANG: between a model and its fine-tune, neither drowning the other."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PyTree, ScalarLike

from .. import _safe as safe
from .._check import above
from .._mask import at_least_f32, blank
from .._tree import check_alike
from ._trees import merge


def wise_ft(
    base: PyTree,
    tree: PyTree,
    *,
    alpha: ScalarLike = 0.5,
    where: PyTree[bool] | None = None,
) -> PyTree:
    """Between a model and its fine-tune; better than both out of distribution.

    merged = (1 - alpha) base + alpha tree

    BANG is this with a `tree` that was fine-tuned on smoothed labels or mixed inputs,
    so that it is no surer than `base`: `overconfidence` measures whether it is.

    Args:
      base: the pytree before fine-tuning, its zero-shot head included; it gives the
        result its dtypes and the leaves that are not merged.
      tree: the pytree after it.
      alpha: 0 is base, 1 is tree; any number. May be traced.
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like base, computed in at least f32.
    Gradient: linear in both; their difference in alpha.
    Cost: one pass.
    Raises: ValueError for trees that differ (with the paths).
    Source: Wortsman et al., "Robust fine-tuning of zero-shot models", 2021,
      arXiv:2109.01903, eq. 1; Lin et al., "Spurious Feature Diversification Improves
      Out-of-distribution Generalization", 2023, arXiv:2309.17230, section 4. Differs:
      BANG's fine-tuning is the user's.
    Example:
      >>> wise_ft(jnp.array([0.0]), jnp.array([2.0]), alpha=0.25)
      Array([0.5], dtype=float32)
    """
    check_alike("tree", tree, base)

    def merge_leaves(pairs):
        for leaf, stack in pairs:
            # Exact at both ends.
            yield (1 - alpha) * leaf + alpha * stack[0]

    return merge(merge_leaves, base, [tree], where, "tree")


def overconfidence(
    base_logits: Float[ArrayLike, "*batch classes"],
    logits: Float[ArrayLike, "*batch classes"],
    *,
    where: Bool[ArrayLike, "*batch"] | None = None,
) -> Float[Array, ""]:
    """How much surer a fine-tune is than the model before it, on the same inputs.

    ratio = mean_x max_y p(y|x) / mean_x max_y p_base(y|x)

    Args:
      base_logits: float[*batch, classes], of the model before fine-tuning.
      logits: float[*batch, classes], of the fine-tune.
      where: bool[*batch], True counts.
    Returns:
      f32[]; 1 for equal confidence, above 1 the fine-tune dominates an average of both;
      0 if nothing is live.
    Gradient: smooth but where the largest logit changes.
    Cost: one softmax of each.
    Raises: ValueError for a where that does not fit.
    Source: Lin et al., "Spurious Feature Diversification Improves Out-of-distribution
      Generalization", 2023, arXiv:2309.17230, section 4. Differs: the ratio of means is
      not in the paper, which compares them.
    Example:
      >>> overconfidence(jnp.zeros((1, 2)), jnp.array([[0.0, 100.0]]))
      Array(2., dtype=float32)
    """
    sure, base = (_confidence(x, where) for x in (logits, base_logits))
    return safe.divide(jnp.sum(sure), jnp.sum(base))


def calibrated_ensemble(
    base_logits: Float[ArrayLike, "*batch classes"],
    logits: Float[ArrayLike, "*batch classes"],
    *,
    temperature: ScalarLike = 1.0,
    alpha: ScalarLike = 0.5,
) -> Float[Array, "*batch classes"]:
    """The ensemble of a model and its fine-tune, the fine-tune's logits cooled.

    z = (1 - alpha) base_logits + alpha logits / temperature

    Args:
      base_logits: float[*batch, classes], of the model before fine-tuning.
      logits: float[*batch, classes], of the fine-tune.
      temperature: > 0; `confidence_temperature` finds the one that makes both equally
        sure. May be traced.
      alpha: the fine-tune's share. May be traced.
    Returns:
      f32[*batch, classes], unnormalised logits.
    Gradient: linear in logits; smooth in temperature and alpha.
    Cost: one pass.
    Raises: ValueError for a temperature <= 0.
    Source: Lin et al., "Spurious Feature Diversification Improves Out-of-distribution
      Generalization", 2023, arXiv:2309.17230, section 4. Differs: a mean, where the
      paper sums logits: the same decisions.
    Example:
      >>> calibrated_ensemble(jnp.zeros((1, 2)), jnp.array([[0.0, 4.0]]), temperature=2)
      Array([[0., 1.]], dtype=float32)
    """
    above("temperature", temperature, 0)
    base, tuned = at_least_f32(base_logits), at_least_f32(logits)
    return jnp.asarray((1 - alpha) * base + alpha * (tuned / temperature))


def confidence_temperature(
    base_logits: Float[ArrayLike, "*batch classes"],
    logits: Float[ArrayLike, "*batch classes"],
    *,
    where: Bool[ArrayLike, "*batch"] | None = None,
) -> Float[Array, ""]:
    """The temperature at which a fine-tune is as sure as the model before it.

    T: mean_x max_y softmax(logits / T)_y = mean_x max_y softmax(base_logits)_y

    Args:
      base_logits: float[*batch, classes], of the model before fine-tuning.
      logits: float[*batch, classes], of the fine-tune.
      where: bool[*batch], True counts.
    Returns:
      f32[], in [2^-20, 2^20]: the ends where there is none, as for logits that are all
      equal; 1 for equal logits.
    Gradient: none, a bisection of log T.
    Cost: 40 softmaxes of the logits.
    Raises: ValueError for a where that does not fit.
    Source: Lin et al., "Spurious Feature Diversification Improves Out-of-distribution
      Generalization", 2023, arXiv:2309.17230, section 4. Differs: the paper searches
      the scale on data.
    Example:
      >>> a, b = jnp.array([[0.0, 1.0]]), jnp.array([[0.0, 3.0]])
      >>> confidence_temperature(a, b)
      Array(3., dtype=float32)
    """
    base_logits, logits = jax.lax.stop_gradient(
        (at_least_f32(base_logits), at_least_f32(logits))
    )
    want = jnp.sum(_confidence(base_logits, where))

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        sure = jnp.sum(_confidence(logits * jnp.exp2(-middle), where)) > want
        return jnp.where(sure, middle, low), jnp.where(sure, high, middle)

    ends = (jnp.full_like(want, -20.0), jnp.full_like(want, 20.0))
    low, high = jax.lax.fori_loop(0, 40, halve, ends)
    return jnp.exp2((low + high) / 2)


class FalseFalseTrue(NamedTuple):
    """Shares of the examples by who is right, in f32[]."""

    ratio: Float[Array, ""]  # both wrong, their average right
    harmed: Float[Array, ""]  # both right, their average wrong
    accuracy: Float[Array, ""]  # of the average
    base_accuracy: Float[Array, ""]
    tuned_accuracy: Float[Array, ""]


def false_false_true(
    base_logits: Float[ArrayLike, "*batch classes"],
    logits: Float[ArrayLike, "*batch classes"],
    average_logits: Float[ArrayLike, "*batch classes"],
    labels: Int[ArrayLike, "*batch"],
    *,
    where: Bool[ArrayLike, "*batch"] | None = None,
) -> FalseFalseTrue:
    """How often an average of models is right where both of them are wrong.

    ratio = mean_x [base wrong and fine-tune wrong and average right]

    Args:
      base_logits: float[*batch, classes], of one model.
      logits: float[*batch, classes], of the other.
      average_logits: float[*batch, classes], of the average of weights or of logits.
      labels: int[*batch].
      where: bool[*batch], True counts.
    Returns:
      `FalseFalseTrue`, f32[] each in [0, 1]; 0 if nothing is live.
    Gradient: none, counts.
    Cost: one pass.
    Raises: ValueError for a where that does not fit.
    Source: Lin et al., "Spurious Feature Diversification Improves Out-of-distribution
      Generalization", 2023, arXiv:2309.17230, section 2. Differs: none; the first of
      equal logits is what a model says.
    Example:
      >>> a, b = jnp.array([[2.0, 3.0, 0.0]]), jnp.array([[2.0, 0.0, 3.0]])
      >>> print(false_false_true(a, b, (a + b) / 2, jnp.array([0])).ratio)
      1.0
    """
    given = (base_logits, logits, average_logits)
    base, tuned, both = (jnp.argmax(x, axis=-1) == labels for x in given)
    live = blank(jnp.ones(jnp.shape(labels)), where)
    count = jnp.maximum(jnp.sum(live), 1)

    def share(x):
        return jnp.sum(jnp.where(x, live, 0)) / count

    return FalseFalseTrue(
        share(~base & ~tuned & both),
        share(base & tuned & ~both),
        share(both),
        share(base),
        share(tuned),
    )


def _confidence(logits, where) -> Float[Array, "*batch"]:
    """The probability of the likeliest class, 0 where masked."""
    logits = blank(at_least_f32(logits), where)
    top = jnp.max(logits, axis=-1)
    return blank(jnp.exp(top - jax.nn.logsumexp(logits, axis=-1)), where)
