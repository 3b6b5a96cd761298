"""Weighted averages of models: soups, interpolation, checkpoint averaging."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree, Real

from .._mask import at_least_f32
from ._trees import along, as_coefficients, merge


def linear(
    trees: Sequence[PyTree],
    *,
    weights: Real[ArrayLike, " n"] | Sequence | None = None,
    normalize: bool = True,
    where: PyTree[bool] | None = None,
) -> PyTree:
    """The weighted average of models; for fine-tunes of one base, or late checkpoints.

    merged = sum_i w_i tree_i / sum_i w_i

    Args:
      trees: n pytrees of one structure. The first gives the result its dtypes and the
        leaves that are not merged: integers, keys, those that `where` rules out.
      weights: float[n], of any sign; None is the plain mean. May be traced.
      normalize: divide by the sum of the weights (static).
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like the first, summed in at least f32. One model gives itself.
    Gradient: linear in trees; smooth in weights, while their sum is not 0.
    Cost: one pass; a copy of one leaf of all trees at a time.
    Raises: ValueError for no trees, for trees that differ (with the paths), for weights
      that are not one a tree.
    Source: Wortsman et al., "Model soups: averaging weights of multiple fine-tuned
      models improves accuracy without increasing inference time", 2022,
      arXiv:2203.05482, sec. 2. Differs: takes weights; the uniform soup is None.
    Example:
      >>> linear([{"w": jnp.array([1.0])}, {"w": jnp.array([4.0])}], weights=[2, 1])
      {'w': Array([2.], dtype=float32)}
    """
    if not trees:
        raise ValueError("trees: wanted at least one, came none")
    w = as_coefficients("weights", weights, len(trees))

    def merge_leaves(pairs):
        return (linear_leaf(x, weights=w, normalize=normalize) for _, x in pairs)

    return merge(merge_leaves, trees[0], trees, where)


def linear_leaf(
    stack: Float[ArrayLike, " n *shape"],
    *,
    weights: Real[ArrayLike, " n"] | Sequence | None = None,
    normalize: bool = True,
) -> Float[Array, "*shape"]:
    """One parameter of `linear`.

    merged = sum_i w_i stack_i / sum_i w_i

    Args:
      stack: float[n, *shape], the parameter in all models.
      weights: float[n], of any sign; None is the plain mean. May be traced.
      normalize: divide by the sum of the weights (static).
    Returns:
      f32[*shape].
    Gradient: as `linear`.
    Cost: as `linear`.
    Raises: ValueError for weights that are not one a model.
    Source: as `linear`.
    Example:
      >>> linear_leaf(jnp.array([[1.0, 0.0], [4.0, 3.0]]), weights=[2, 1])
      Array([2., 1.], dtype=float32)
    """
    stack = at_least_f32(stack)
    w = as_coefficients("weights", weights, stack.shape[0])
    total = jnp.sum(along(w, stack) * stack, axis=0)
    return total / jnp.sum(w) if normalize else total
