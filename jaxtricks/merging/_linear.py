"""Weighted averages of models: soups, interpolation, checkpoint averaging."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float

from ._namespace import (
    Coefficients,
    Tree,
    along,
    at_least_f32,
    coefficients,
    namespace,
)
from ._trees import stacked


def linear(
    trees: Sequence[Tree],
    *,
    weights: Coefficients = None,
    normalize: bool = True,
    where: Tree | None = None,
) -> Tree:
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
      >>> import jax.numpy as jnp
      >>> linear([{"w": jnp.array([1.0])}, {"w": jnp.array([4.0])}], weights=[2, 1])
      {'w': Array([2.], dtype=float32)}
    """

    def leaf(stack):
        return linear_leaf(stack, weights=weights, normalize=normalize)

    return stacked(leaf, trees, where)


def linear_leaf(
    stack: Float[Any, " n *shape"],
    *,
    weights: Coefficients = None,
    normalize: bool = True,
) -> Float[Any, "*shape"]:
    """One parameter of `linear`.

    merged = sum_i w_i stack_i / sum_i w_i

    Args:
      stack: float[n, *shape], the parameter in all models; numpy's or jax's.
      weights: float[n], of any sign; None is the plain mean. May be traced.
      normalize: divide by the sum of the weights (static).
    Returns:
      f32[*shape], numpy's unless an argument is jax's.
    Gradient: as `linear`.
    Cost: as `linear`.
    Raises: ValueError for weights that are not one a model.
    Source: as `linear`.
    Example:
      >>> import numpy as np
      >>> linear_leaf(np.array([[1.0, 0.0], [4.0, 3.0]]), weights=[2, 1])
      array([2., 1.])
    """
    xp = namespace(stack, weights)
    stack = at_least_f32(xp, stack)
    w = coefficients(xp, "weights", weights, stack)
    total = xp.sum(along(w, stack) * stack, axis=0)
    return total / xp.sum(w) if normalize else total
