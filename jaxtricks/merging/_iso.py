"""Isotropic merging: all directions of the merged change made equally long."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float

from .._check import between
from ._matrices import gathered, is_matrix, merge_matrices, polar, svd
from ._namespace import Number, Tree, deltas, number


def iso(
    base: Tree,
    trees: Sequence[Tree],
    *,
    common: float | int = 1.0,
    scale: Number = 1.0,
    matrices: Tree | None = None,
    where: Tree | None = None,
) -> Tree:
    """Merges fine-tunes so that no task's few strong directions drown the others.

    U S V' = sum_i (tree_i - base); merged = base + scale mean(S) U V'

    With common < 1 (Iso-CTS) the weakest directions of U and V give way to each task's
    strongest ones outside of the others, and all are made orthogonal again.

    Args:
      base: the pytree that all were fine-tuned from; it gives the result its dtypes and
        the leaves that are not merged.
      trees: n pytrees of the structure of `base`.
      common: in [0, 1], the share of common directions: 1 is Iso-C, the code's 0.8
        Iso-CTS. Rounded so that the tasks' own directions are n times as many (static).
      scale: the paper's alpha, chosen on validation data. May be traced.
      matrices: prefix tree of bools: False gives a matrix the mean change, which all
        that are no matrices have (the code: text projections). None is all True.
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like `base`, computed in at least f32; equal to it without changes.
    Gradient: smooth in scale; in base and trees through the decompositions, with 0 for
      1/(s_i - s_j) where singular values are equal.
    Cost: an SVD a matrix; with common < 1 one more a task, and two. Matrices are
      gathered on every device.
    Raises: ValueError for no trees, for trees that differ (with the paths), for a share
      out of range.
    Source: Marczak et al., "No Task Left Behind: Isotropic Model Merging with Common
      and Task-Specific Subspaces", 2025, arXiv:2502.04959, alg. 1 and 2, and its code.
      Differs: where the shares round below none, no direction is common, where the code
      fails.
    Example:
      >>> import jax.numpy as jnp
      >>> iso(jnp.zeros((2, 2)), [jnp.diag(jnp.array([5.0, 1.0]))])
      Array([[3., 0.],
             [0., 3.]], dtype=float32)
    """

    def leaf(base, stack, matrix):
        return iso_leaf(base, stack, common=common, scale=scale, matrix=matrix)

    return merge_matrices(leaf, base, trees, matrices, where)


def iso_leaf(
    base: Float[Any, "*shape"],
    stack: Float[Any, " n *shape"],
    *,
    common: float | int = 1.0,
    scale: Number = 1.0,
    matrix: bool = True,
) -> Float[Any, "*shape"]:
    """One parameter of `iso`.

    U S V' = sum_i (stack_i - base); merged = base + scale mean(S) U V'

    Args:
      base: float[*shape], before fine-tuning; numpy's or jax's.
      stack: float[n, *shape], the parameter in all models.
      common: in [0, 1], as in `iso` (static).
      scale: of the merged change. May be traced.
      matrix: False gives a matrix the mean change too (static).
    Returns:
      f32[*shape].
    Gradient: as `iso`.
    Cost: as `iso`.
    Raises: ValueError for a share out of range, a base of another shape.
    Source: as `iso`.
    Example:
      >>> import jax.numpy as jnp
      >>> iso_leaf(jnp.zeros((1, 2)), jnp.array([[[3.0, 0.0]], [[0.0, 4.0]]]))
      Array([[3., 4.]], dtype=float32)
    """
    between("common", common, 0, 1)
    xp, base, changes = deltas(base, stack, scale)
    n, scale = len(changes), number(xp, scale, changes)
    if not (matrix and is_matrix(base)):
        return base + scale * xp.mean(changes, axis=0)
    changes = gathered(xp, changes)
    size = min(base.shape)
    own = min(round((size - int(size * common)) / n), size // n)
    shared = size - own * n
    u, s, vt = svd(xp, xp.sum(changes, axis=0))
    if own == 0:
        return base + scale * xp.mean(s) * (u @ vt)
    u, s, vt = u[:, :shared], s[:shared], vt[:shared]
    outside = [change - u @ (u.T @ change) for change in changes]
    parts = [svd(xp, x) for x in outside]
    U = xp.concatenate([*(p[0][:, :own] for p in parts), u], axis=1)
    S = xp.concatenate([*(p[1][:own] for p in parts), s])
    V = xp.concatenate([*(p[2][:own] for p in parts), vt])
    return base + scale * xp.mean(S) * (polar(xp, U) @ polar(xp, V))
