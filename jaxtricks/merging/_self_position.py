"""Self Positioning: a point among task vectors, found by a few scalars' gradients."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree, Real, ScalarLike

from ._namespace import along, coefficients
from ._trees import merge


def self_position(
    base: PyTree,
    trees: Sequence[PyTree],
    *,
    logits: Real[Any, " n"] | Sequence | None = None,
    scale: ScalarLike = 1.0,
    where: PyTree[bool] | None = None,
) -> PyTree:
    """A mixture of task vectors and its length, to be learned by n + 1 scalars.

    merged = base + scale sum_i softmax(logits)_i (tree_i - base)

    `fit_coefficients` descends the loss on a small probing set of all tasks.

    Args:
      base: the pytree that all were fine-tuned from; it gives the result its dtypes and
        the leaves that are not merged.
      trees: n pytrees of the structure of `base`.
      logits: float[n], the paper's alpha before its softmax; None is all 0, the mean.
        May be traced.
      scale: the length of the mixture, to begin at 1. May be traced.
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like `base`, summed in at least f32; scale=0 gives `base`, a large logit
      with scale=1 that tree.
    Gradient: linear in base, trees and scale; smooth in logits, 0 for one tree.
    Cost: one pass; a copy of one leaf of all trees at a time.
    Raises: ValueError for no trees, for trees that differ (with the paths), for logits
      that are not one a tree.
    Source: Li et al., "Improving General Text Embedding Model: Tackling Task Conflict
      and Data Imbalance through Model Merging", 2024, arXiv:2410.15035, section 4.
      Differs: the softmax and the single scale are how we read the interpolation space.
    Example:
      >>> base, trees = jnp.zeros(1), [jnp.array([1.0]), jnp.array([3.0])]
      >>> self_position(base, trees, logits=[0.0, 0.0], scale=1.5)
      Array([3.], dtype=float32)
    """

    def merge_leaves(pairs):
        for leaf, stack in pairs:
            share = jax.nn.softmax(coefficients(jnp, "logits", logits, stack))
            mixture = jnp.sum(along(share, stack) * (stack - leaf[None]), axis=0)
            yield leaf + scale * mixture

    return merge(merge_leaves, base, trees, where)
