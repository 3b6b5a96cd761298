"""TSV-Merge: the singular vectors of all tasks, made orthogonal to each other."""

from collections.abc import Sequence
from typing import Any, Literal

from jaxtyping import Float

from ._matrices import gathered, is_matrix, merge_matrices, polar, svd
from ._namespace import Number, Tree, deltas, number

Rank = int | Literal["full"] | None


def tsv(
    base: Tree,
    trees: Sequence[Tree],
    *,
    rank: Rank = None,
    scale: Number = 1.0,
    matrices: Tree | None = None,
    where: Tree | None = None,
) -> Tree:
    """Merges fine-tunes of one base with little interference; for many tasks.

    U_i S_i V_i' the leading triplets of tree_i - base; U = [U_1 ... U_n], V alike
    merged = base + scale polar(U) diag(S_1 ... S_n) polar(V)'

    Args:
      base: the pytree that all were fine-tuned from; it gives the result its dtypes and
        the leaves that are not merged.
      trees: n pytrees of the structure of `base`.
      rank: triplets of each task: None is floor(min(shape) / n), as TSV-M (so that a
        matrix with fewer rows than tasks is `base`'s); "full" its lossless variant
        (static).
      scale: TSV-M's alpha, 1. May be traced.
      matrices: prefix tree of bools: False gives a matrix the mean change, which all
        that are no matrices have (the code: text projections). None is all True.
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like `base`, computed in at least f32. One model with scale=1 is itself;
      changes with orthogonal row and column spaces add up with rank="full".
    Gradient: smooth in scale; in base and trees through the decompositions, with 0 for
      1/(s_i - s_j) where singular values are equal.
    Cost: an SVD a task and matrix, and two of all of them side by side; matrices are
      gathered on every device.
    Raises: ValueError for no trees, for trees that differ (with the paths), a rank < 0.
    Source: Gargiulo et al., "Task Singular Vectors: Reducing Task Interference in Model
      Merging", 2024, arXiv:2412.00081, alg. 1, and its code; Yang et al., "Mix Data or
      Merge Models? Balancing the Helpfulness, Honesty, and Harmlessness of Large
      Language Model via Model Merging", 2025, arXiv:2502.06876. Differs: of the second
      only the method it starts from, without its reweighting and its choice of ranks;
      vectors whose singular value is 0 have no say in what is orthogonal.
    Example:
      >>> import jax.numpy as jnp
      >>> base = jnp.zeros((2, 2))
      >>> a, b = base.at[0, 0].set(2.0), base.at[1, 1].set(1.0)
      >>> jnp.abs(tsv(base, [a, b]))
      Array([[2., 0.],
             [0., 1.]], dtype=float32)
    """

    def leaf(base, stack, matrix):
        return tsv_leaf(base, stack, rank=rank, scale=scale, matrix=matrix)

    return merge_matrices(leaf, base, trees, matrices, where)


def tsv_leaf(
    base: Float[Any, "*shape"],
    stack: Float[Any, " n *shape"],
    *,
    rank: Rank = None,
    scale: Number = 1.0,
    matrix: bool = True,
) -> Float[Any, "*shape"]:
    """One parameter of `tsv`.

    merged = base + scale polar(U) diag(S_1 ... S_n) polar(V)', as in `tsv`

    Args:
      base: float[*shape], before fine-tuning; numpy's or jax's.
      stack: float[n, *shape], the parameter in all models.
      rank: None, "full" or an int, as in `tsv` (static).
      scale: of the merged change. May be traced.
      matrix: False gives a matrix the mean change too (static).
    Returns:
      f32[*shape].
    Gradient: as `tsv`.
    Cost: as `tsv`.
    Raises: ValueError for a rank < 0, a base of another shape.
    Source: as `tsv`.
    Example:
      >>> import jax.numpy as jnp
      >>> tsv_leaf(jnp.zeros(2), jnp.array([[1.0, 2.0], [3.0, 2.0]]))  # the mean
      Array([2., 2.], dtype=float32)
    """
    if isinstance(rank, str) and rank != "full":
        raise ValueError(f"rank: wanted None, 'full' or an int, came {rank!r}")
    if isinstance(rank, int) and rank < 0:
        raise ValueError(f"rank: wanted >= 0, came {rank}")
    xp, base, changes = deltas(base, stack, scale)
    n, scale = len(changes), number(xp, scale, changes)
    if not (matrix and is_matrix(base)):
        return base + scale * xp.mean(changes, axis=0)
    changes = gathered(xp, changes)
    size = min(base.shape)
    k = min(size, size // n if rank is None else size if rank == "full" else rank)
    parts = [svd(xp, change) for change in changes]
    U = xp.concatenate([u[:, :k] for u, _, _ in parts], axis=1)
    S = xp.concatenate([s[:k] for _, s, _ in parts])
    V = xp.concatenate([vt[:k] for _, _, vt in parts])
    if not k:
        return base + xp.zeros_like(base)
    # Vectors of no change have no weight, and no say in what is orthogonal.
    live = (S > 0).astype(S.dtype)
    U, V = U * live[None], V * live[:, None]
    return base + scale * ((polar(xp, U) * S[None]) @ polar(xp, V))
