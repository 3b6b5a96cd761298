"""KnOTS: changes of low rank, seen in one basis, are merged by their coordinates."""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import jax.numpy as jnp
from jaxtyping import PyTree, ScalarLike

from .._check import at_least, one_of
from ._matrices import gathered, is_matrix, svd
from ._ties import ties
from ._trees import merge


def knots(
    base: PyTree,
    trees: Sequence[PyTree],
    *,
    method: Callable[[list, list[list]], list] | None = None,
    rank: int | None = None,
    shared: Literal["outputs", "inputs"] = "outputs",
    eps: ScalarLike = 1e-5,
    scale: ScalarLike = 1.0,
    where: PyTree[bool] | None = None,
) -> PyTree:
    """Merges fine-tunes by LoRA, whose changes lie in different directions, by `ties`.

    [tree_1 - base; ...; tree_n - base] = [X_1; ...; X_n] V', V' orthonormal rows
    merged = base + scale method(0, [X_1 ... X_n]) V'

    Args:
      base: the pytree that all were fine-tuned from; it gives the result its dtypes and
        the leaves that are not merged.
      trees: n pytrees of the structure of `base`, adapters folded in (`fold_lora`).
      method: any merge of this family, (base, trees) -> tree: it gets the coordinates
        of all matrices and the changes of what is no matrix, as lists of leaves, and a
        base of zeros. None is the authors' `ties` with a density of 0.2, global, over
        the count of those that agree.
      rank: >= 1, the most directions to keep; for adapters n times theirs, so that a
        density is a share of what they can be. None is all of a matrix (static).
      shared: whose directions are everybody's: those of the "outputs" of kernels
        [inputs, outputs], or of the "inputs" (static).
      eps: >= 0; directions of singular values up to it count as none: their
        coordinates are 0; the code's 1e-5. May be traced.
      scale: of the merged change; the authors search it. May be traced.
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like `base`, computed in at least f32; equal to it without changes. A
      method that is linear gives, up to eps and rank, what it gives without all this.
    Gradient: as the method's; through the decompositions, with 0 for 1/(s_i - s_j)
      where singular values are equal.
    Cost: an SVD of all changes of a matrix one below the other; a copy of all
      changes. Matrices are gathered on every device.
    Raises: ValueError for no trees, for trees that differ (with the paths), rank < 1,
      eps < 0, another word.
    Source: Stoica et al., "Model merging with SVD to tie the Knots", 2024,
      arXiv:2410.19735, section 4, and its code. Differs: what is no matrix is merged
      with the coordinates, where the code leaves it out, or merges it apart.
    Example:
      >>> base = jnp.zeros((1, 2))
      >>> a, b = jnp.array([[3.0, 0.0]]), jnp.array([[0.0, 4.0]])
      >>> mean = lambda base, trees: [sum(xs) / 2 for xs in zip(*trees)]
      >>> knots(base, [a, b], method=mean)
      Array([[1.5, 2. ]], dtype=float32)
    """
    one_of("shared", shared, ("outputs", "inputs"))
    at_least("eps", eps, 0)
    if rank is not None:
        at_least("rank", rank, 1)
    if method is None:
        method = functools.partial(ties, density=0.2, scope="global", divisor="count")

    def coordinates(stack):
        """[n, *the coordinates'], and the basis or None."""
        if not is_matrix(stack[0]):
            return stack, None
        x = gathered(jnp, stack)
        x = x if shared == "outputs" else jnp.swapaxes(x, 1, 2)
        u, s, vt = svd(jnp, x.reshape(-1, x.shape[2]))
        k = len(s) if rank is None else min(rank, len(s))
        s = jnp.where(s[:k] > eps, s[:k], 0)
        return (u[:, :k] * s[None]).reshape(*x.shape[:2], k), vt[:k]

    def back(merged, basis):
        if basis is None:
            return merged
        change = merged @ basis
        return change if shared == "outputs" else change.T

    def merge_leaves(pairs):
        pairs = list(pairs)
        if not pairs:
            return
        parts = [coordinates(stack - leaf[None]) for leaf, stack in pairs]
        columns = [list(x) for x, _ in parts]
        zeros = [jnp.zeros_like(column[0]) for column in columns]
        merged = method(zeros, [list(row) for row in zip(*columns, strict=True)])
        for (leaf, _), x, (_, basis) in zip(pairs, merged, parts, strict=True):
            yield leaf + scale * back(x, basis)

    return merge(merge_leaves, base, trees, where)
