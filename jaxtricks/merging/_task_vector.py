"""Task arithmetic: what fine-tuning changed, as a vector to add, negate and combine."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float

from ._consensus import combine
from ._linear import linear_leaf
from ._namespace import Coefficients, Number, Tree, coefficients, deltas, number
from ._trees import from_base, merge


def task_vector(base: Tree, tree: Tree) -> Tree:
    """What fine-tuning changed; to add elsewhere, negate or combine.

    vector = tree - base

    Args:
      base: the pytree before fine-tuning.
      tree: the pytree after it.
    Returns:
      A tree with the dtypes of `tree`; leaves that are no floats are those of `tree`.
    Gradient: linear.
    Cost: one pass.
    Raises: ValueError where the trees differ, with the paths.
    Source: Ilharco et al., "Editing Models with Task Arithmetic", 2022,
      arXiv:2212.04089, sec. 2. Differs: none.
    Example:
      >>> import jax.numpy as jnp
      >>> task_vector({"w": jnp.array([1.0])}, {"w": jnp.array([1.5])})
      {'w': Array([0.5], dtype=float32)}
    """
    from .._tree import add_scaled, check_alike

    check_alike("tree", tree, base)
    return add_scaled(tree, -1, base)


def add_task_vectors(
    base: Tree,
    vectors: Sequence[Tree],
    *,
    weights: Coefficients = None,
    scale: Number = 1.0,
    where: Tree | None = None,
) -> Tree:
    """A model that learns, forgets or transfers tasks; without training.

    merged = base + scale sum_i w_i vector_i

    Args:
      base: the pytree to edit; it gives the result its dtypes and the leaves that are
        not merged: integers, keys, those that `where` rules out.
      vectors: n task vectors, pytrees of the structure of `base`.
      weights: float[n], negative to forget; None is all 1. May be traced.
      scale: the paper's lambda. May be traced.
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like `base`, summed in at least f32; scale=0 gives `base`.
    Gradient: linear in base and vectors, bilinear in weights and scale.
    Cost: one pass; a copy of one leaf of all vectors at a time.
    Raises: ValueError for no vectors, for trees that differ (with the paths), for
      weights that are not one a vector.
    Source: Ilharco et al., "Editing Models with Task Arithmetic", 2022,
      arXiv:2212.04089, sec. 2. Differs: none.
    Example:
      >>> import jax.numpy as jnp
      >>> base, vector = {"w": jnp.array([1.0])}, {"w": jnp.array([0.5])}
      >>> add_task_vectors(base, [vector], scale=-0.8)  # to forget
      {'w': Array([0.6], dtype=float32)}
    """

    def merge_leaves(pairs):
        for leaf, stack in pairs:
            yield leaf + scale * linear_leaf(stack, weights=weights, normalize=False)

    return merge(merge_leaves, base, vectors, where, "vectors")


def task_arithmetic(
    base: Tree,
    trees: Sequence[Tree],
    *,
    weights: Coefficients = None,
    normalize: bool = False,
    scale: Number = 1.0,
    where: Tree | None = None,
) -> Tree:
    """`add_task_vectors` of fine-tuned models: the sum of what they changed.

    merged = base + scale sum_i w_i (tree_i - base)

    Args:
      base: the pytree that all were fine-tuned from; it gives the result its dtypes and
        the leaves that are not merged: integers, keys, those `where` rules out.
      trees: n pytrees of the structure of `base`.
      weights: float[n], negative to forget; None is all 1. May be traced.
      normalize: divide by the sum of the weights, or by 1 where that is 0 (static).
      scale: the paper's lambda. May be traced.
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like `base`, summed in at least f32; scale=0 gives `base`.
    Gradient: linear in base and trees, bilinear in weights and scale.
    Cost: one pass; a copy of one leaf of all trees at a time.
    Raises: ValueError for no trees, for trees that differ (with the paths), for weights
      that are not one a tree.
    Source: Ilharco et al., "Editing Models with Task Arithmetic", 2022,
      arXiv:2212.04089, sec. 2. Differs: none.
    Example:
      >>> import jax.numpy as jnp
      >>> trees = [jnp.array([1.5, 1.0]), jnp.array([1.0, 3.0])]
      >>> task_arithmetic(jnp.ones(2), trees, scale=0.5)
      Array([1.25, 2.  ], dtype=float32)
    """

    def leaf(x, stack):
        return task_arithmetic_leaf(
            x, stack, weights=weights, normalize=normalize, scale=scale
        )

    return from_base(leaf, base, trees, where)


def task_arithmetic_leaf(
    base: Float[Any, "*shape"],
    stack: Float[Any, " n *shape"],
    *,
    weights: Coefficients = None,
    normalize: bool = False,
    scale: Number = 1.0,
) -> Float[Any, "*shape"]:
    """One parameter of `task_arithmetic`.

    merged = base + scale sum_i w_i (stack_i - base)

    Args:
      base: float[*shape], the parameter that all were fine-tuned from.
      stack: float[n, *shape], the parameter in n models.
      weights: float[n], negative to forget; None is all 1. May be traced.
      normalize: divide by the sum of the weights, or by 1 where that is 0 (static).
      scale: the paper's lambda. May be traced.
    Returns:
      f32[*shape], numpy's unless an argument is jax's.
    Gradient: as `task_arithmetic`.
    Cost: as `task_arithmetic`.
    Raises: ValueError for weights that are not one a model, for a base of another
      shape.
    Source: as `task_arithmetic`.
    Example:
      >>> import numpy as np
      >>> stack = np.array([[1.5, 1.0], [1.0, 3.0]])
      >>> task_arithmetic_leaf(np.ones(2), stack, scale=0.5)
      array([1.25, 2.  ])
    """
    xp, base, changes = deltas(base, stack, weights, scale)
    w = coefficients(xp, "weights", weights, changes)
    merged = combine(xp, changes, w, consensus="linear", normalize=normalize)
    return base + number(xp, scale, base) * merged
