"""Task arithmetic: what fine-tuning changed, as a vector to add, negate and combine."""

from collections.abc import Sequence

from jax.typing import ArrayLike
from jaxtyping import PyTree, Real, ScalarLike

from .._tree import add_scaled, check_alike
from ._linear import linear_leaf
from ._trees import as_coefficients, merge


def task_vector(base: PyTree, tree: PyTree) -> PyTree:
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
    check_alike("tree", tree, base)
    return add_scaled(tree, -1, base)


def add_task_vectors(
    base: PyTree,
    vectors: Sequence[PyTree],
    *,
    weights: Real[ArrayLike, " n"] | Sequence | None = None,
    scale: ScalarLike = 1.0,
    where: PyTree[bool] | None = None,
) -> PyTree:
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
    if not vectors:
        raise ValueError("vectors: wanted at least one, came none")
    w = as_coefficients("weights", weights, len(vectors))

    def merge_leaves(pairs):
        for leaf, stack in pairs:
            yield leaf + scale * linear_leaf(stack, weights=w, normalize=False)

    return merge(merge_leaves, base, vectors, where, "vectors")
