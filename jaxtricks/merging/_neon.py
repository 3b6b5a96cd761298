"""Neon: away from what training on one's own samples does."""

from jaxtyping import Array, Float, PyTree, ScalarLike

from .. import _safe as safe
from .. import _tree as tree_
from .._tree import check_alike
from ._beside import spread
from ._trees import merge


def neon(
    base: PyTree,
    tree: PyTree,
    *,
    weight: ScalarLike | PyTree = 1.0,
    where: PyTree[bool] | None = None,
) -> PyTree:
    """Extrapolates away from a model that was briefly trained on its own samples.

    merged = (1 + weight) base - weight tree

    Args:
      base: the pytree of a generative model; it gives the result its dtypes and the
        leaves that are not merged.
      tree: the same after a short fine-tuning on its own samples, by the same loss.
      weight: > 0, or a prefix tree of them; to be searched on a validation metric, with
        the guidance scale. May be traced.
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like base, computed in at least f32; 0 gives base, -1 tree.
    Gradient: linear in both; their difference in weight.
    Cost: one pass.
    Raises: ValueError for trees that differ (with the paths).
    Source: Alemohammad et al., "Neon: Negative Extrapolation From Self-Training
      Improves Image Generation", 2025, arXiv:2510.03597, eq. 1. Differs: none.
    Example:
      >>> import jax.numpy as jnp
      >>> neon(jnp.array([1.0]), jnp.array([0.5]), weight=2.0)
      Array([2.], dtype=float32)
    """
    check_alike("tree", tree, base)
    weights = spread("weight", weight, base, where)

    def merge_leaves(pairs):
        for (leaf, stack), w in zip(pairs, weights, strict=True):
            yield (1 + w) * leaf - w * stack[0]

    return merge(merge_leaves, base, [tree], where, "tree")


def neon_alignment(grads: PyTree, base: PyTree, tree: PyTree) -> Float[Array, ""]:
    """Whether `neon` improves a model: what its own samples teach is against the data.

    cos(grads, tree - base)

    Args:
      grads: the gradients at base of the loss on real data.
      base: the pytree of the model.
      tree: the same after a short fine-tuning on its own samples.
    Returns:
      f32[], in [-1, 1]: above 0 a small weight of `neon` lowers the loss, below 0 it
      raises it; 0 for no gradient or no change.
    Gradient: smooth; 0 where grads or the change are.
    Cost: one pass.
    Raises: ValueError for trees that differ (with the paths).
    Source: Alemohammad et al., "Neon: Negative Extrapolation From Self-Training
      Improves Image Generation", 2025, arXiv:2510.03597, section 3. Differs: the sign:
      tree - base is against the gradients on own samples, with which the paper
      compares.
    Example:
      >>> import jax.numpy as jnp
      >>> base, tree = jnp.array([1.0, 0.0]), jnp.array([2.0, 0.0])
      >>> print(neon_alignment(jnp.array([3.0, 4.0]), base, tree))
      0.6
    """
    check_alike("grads", grads, base)
    check_alike("tree", tree, base)
    change = tree_.add_scaled(tree_.promote(tree), -1, tree_.promote(base))

    def unit(x):
        size = safe.nonzero(tree_.norm(x))
        return tree_.map_floats(lambda leaf: leaf / size, tree_.promote(x))

    return tree_.dot(unit(grads), unit(change))
