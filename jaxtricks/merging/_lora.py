"""LoRA: a fine-tune as a base and factors of low rank, there and back."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, ScalarLike

from .. import _safe as safe
from .._check import at_least
from .._mask import at_least_f32
from .._tree import check_alike, is_float
from ._beside import broadcast
from ._matrices import is_matrix, svd


class Lora(NamedTuple):
    """A change of low rank of a kernel [inputs, outputs]: a @ b."""

    a: Float[Array, "inputs rank"]
    b: Float[Array, "rank outputs"]


def extract_lora(
    base: PyTree,
    tree: PyTree,
    *,
    rank: int,
    eps: ScalarLike = 0.0,
    where: PyTree[bool] | None = None,
) -> PyTree:
    """The low-rank adapter nearest to what fine-tuning changed; to ship or to merge.

    U S V' = tree - base; a = U_r sqrt(S_r), b = sqrt(S_r) V_r'

    Args:
      base: the pytree before fine-tuning.
      tree: the pytree after it.
      rank: >= 1, the most; a smaller side of a matrix is its own (static).
      eps: >= 0; singular values up to it count as 0: their columns are 0. May be
        traced.
      where: prefix tree of bools, True extracts (static).
    Returns:
      A tree like base: `Lora` for each matrix, in at least f32, None for all else: its
      change is not kept.
    Gradient: through the decomposition, with 0 for 1/(s_i - s_j) where singular values
      are equal.
    Cost: an SVD a matrix, gathered on every device.
    Raises: ValueError for trees that differ (with the paths), for rank < 1, eps < 0.
    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021,
      arXiv:2106.09685, section 4.1. Differs: the factors are those of a full
      fine-tune (Eckart and Young), each with the root of the singular values.
    Example:
      >>> change = jnp.array([[4.0, 0.0], [0.0, 1.0]])
      >>> lora = extract_lora(jnp.zeros((2, 2)), change, rank=1)
      >>> lora.a @ lora.b
      Array([[4., 0.],
             [0., 0.]], dtype=float32)
    """
    at_least("rank", rank, 1)
    at_least("eps", eps, 0)
    check_alike("tree", tree, base)
    wanted = broadcast("where", True if where is None else where, base)
    wanted = jax.tree.unflatten(jax.tree.structure(base), wanted)

    def leaf(x, y, on):
        if not (on and is_float(x) and is_matrix(jnp.asarray(x))):
            return None
        u, s, vt = svd(jnp, at_least_f32(y) - at_least_f32(x))
        k = min(rank, len(s))
        s = jnp.where(s[:k] > eps, s[:k], 0)
        root = safe.sqrt(s)
        return Lora(u[:, :k] * root[None], root[:, None] * vt[:k])

    return jax.tree.map(leaf, base, tree, wanted)


def fold_lora(base: PyTree, lora: PyTree, *, scale: ScalarLike = 1.0) -> PyTree:
    """A model with its adapter added to its weights.

    folded = base + scale a @ b

    Args:
      base: the pytree that the adapter belongs to; it gives the result its dtypes.
      lora: a tree like base of `Lora` or None, as of `extract_lora`.
      scale: LoRA's alpha / rank; negative takes an adapter out. May be traced.
    Returns:
      A tree like base, computed in at least f32; leaves without an adapter are base's.
    Gradient: linear in base and scale, bilinear in a and b.
    Cost: a product a matrix.
    Raises: ValueError for a lora of another structure or shape, with the path.
    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021,
      arXiv:2106.09685, eq. 3. Differs: kernels are [inputs, outputs].
    Example:
      >>> lora = Lora(jnp.ones((2, 1)), jnp.array([[1.0, 3.0]]))
      >>> fold_lora(jnp.zeros((2, 2)), lora, scale=0.5)
      Array([[0.5, 1.5],
             [0.5, 1.5]], dtype=float32)
    """

    def is_end(x):
        return x is None or isinstance(x, Lora)

    ends = {
        jax.tree_util.keystr(path): end
        for path, end in jax.tree_util.tree_leaves_with_path(lora, is_leaf=is_end)
    }
    leaves = jax.tree_util.tree_leaves_with_path(base)
    known = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    wrong = [f"{p} is missing" for p in known if p not in ends]
    extra = [p for p, end in ends.items() if p not in known and end is not None]
    wrong += [f"{p} is not wanted" for p in extra]
    for path, end in ends.items():
        if path in known and end is not None:
            shape = (*end.a.shape[:1], *end.b.shape[1:])
            inner = end.a.shape[1:] == end.b.shape[:1]
            if shape != jnp.shape(known[path]) or not inner:
                wrong.append(
                    f"{path} has factors of shapes {end.a.shape} and {end.b.shape}, "
                    f"wanted a product of shape {jnp.shape(known[path])}"
                )
    if wrong:
        raise ValueError("lora: " + "; ".join(wrong))
    changes = iter(ends[jax.tree_util.keystr(path)] for path, _ in leaves)

    def leaf(x):
        end = next(changes)
        if end is None:
            return x
        change = at_least_f32(end.a) @ at_least_f32(end.b)
        return (at_least_f32(x) + scale * change).astype(jnp.result_type(x))

    return jax.tree.map(leaf, base)
