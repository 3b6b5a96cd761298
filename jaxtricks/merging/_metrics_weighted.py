"""Metrics-weighted averaging: better and later checkpoints count more."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, Real, ScalarLike

from .. import _safe as safe
from .._check import one_of
from ._linear import linear
from ._namespace import at_least_f32


def metrics_weighted(
    trees: Sequence[PyTree],
    metrics: Real[Any, " n"] | Sequence,
    *,
    better: Literal["lower", "higher"] = "lower",
    penalty: ScalarLike = 1.0,
    where: PyTree[bool] | None = None,
) -> PyTree:
    """The average of checkpoints, or of their adapters, weighted by a metric.

    merged = sum_i w_i tree_i, w of `metric_weights`

    Args:
      trees: n pytrees of one structure. The first gives the result its dtypes and the
        leaves that are not merged. Of adapters, A and B averaged are not B A averaged.
      metrics: float[n], > 0: training losses (lower), or steps (higher).
      better, penalty: as of `metric_weights`.
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like the first, summed in at least f32; equal metrics, or a penalty of 0,
      give the mean.
    Gradient: linear in trees; smooth in metrics and penalty.
    Cost: that of `linear`.
    Raises: ValueError for no trees, for trees that differ (with the paths), for metrics
      that are not one a tree.
    Source: Yu and Choi, "Parameter-Efficient Checkpoint Merging via Metrics-Weighted
      Averaging", 2025, arXiv:2504.18580. Differs: as of `metric_weights`.
    Example:
      >>> trees = [jnp.array([0.0]), jnp.array([3.0])]
      >>> metrics_weighted(trees, [2.0, 1.0])  # losses: 1/3 and 2/3
      Array([2.], dtype=float32)
    """
    if not trees:
        raise ValueError("trees: wanted at least one, came none")
    w = metric_weights(metrics, better=better, penalty=penalty)
    if w.shape != (len(trees),):
        raise ValueError(f"metrics: wanted {len(trees)}, came shape {w.shape}")
    return linear(trees, weights=w, normalize=False, where=where)


def metric_weights(
    metrics: Real[Any, " n"] | Sequence,
    *,
    better: Literal["lower", "higher"] = "lower",
    penalty: ScalarLike = 1.0,
) -> Float[Array, " n"]:
    """Weights of checkpoints from their losses or steps, with one knob for all.

    w_i = m_i^-penalty / sum_j m_j^-penalty; m_i^penalty where higher is better

    Args:
      metrics: float[n], > 0: training losses, or steps; step 0 does not count.
      better: "lower" for losses, "higher" for steps and accuracies (static).
      penalty: 0 is uniform; the larger, the more the best alone counts. May be traced.
    Returns:
      f32[n], > 0, of sum 1.
    Gradient: smooth in metrics > 0 and penalty.
    Cost: none.
    Raises: ValueError for another word.
    Source: Yu and Choi, "Parameter-Efficient Checkpoint Merging via Metrics-Weighted
      Averaging", 2025, arXiv:2504.18580. Differs: how the paper's penalty enters was
      not read; a power is our choice.
    Example:
      >>> jnp.round(metric_weights([100, 300], better="higher"), 4)
      Array([0.25, 0.75], dtype=float32)
    """
    one_of("better", better, ("lower", "higher"))
    if isinstance(metrics, list | tuple):
        metrics = jnp.stack([jnp.asarray(m) for m in metrics])
    size = safe.log(at_least_f32(jnp, metrics))
    return jax.nn.softmax(penalty * (size if better == "higher" else -size))
