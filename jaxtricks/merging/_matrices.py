"""What merges of matrices are made of, for numpy and jax."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ._namespace import Tree


def is_matrix(x: Any) -> bool:
    """Whether there is something to decompose."""
    return x.ndim == 2 and 0 not in x.shape


def svd(xp: Any, x: Float[Any, "m n"]) -> tuple[Any, Any, Any]:
    """The thin decomposition u, s, v' of a matrix; NaN if an entry is not finite.

    Under jax the matrix is gathered on every device, and 1/s and 1/(s_i - s_j) in
    derivatives are 0 where they are infinite.
    """
    if xp is np:
        if np.isfinite(x).all():
            return np.linalg.svd(x, full_matrices=False)
        rank = min(x.shape)
        shapes = (x.shape[0], rank), (rank,), (rank, x.shape[1])
        u, s, vt = (np.full(shape, np.nan, x.dtype) for shape in shapes)
        return u, s, vt
    from ..optimizers._finite_slopes import finite_slopes

    def thin(y):
        return xp.linalg.svd(y, full_matrices=False)

    return finite_slopes(thin)(gathered(xp, x))


def symmetric_inverse(xp: Any, x: Float[Any, "k k"]) -> Float[Any, "k k"]:
    """The pseudoinverse of a symmetric matrix; NaN if an entry is not finite."""
    if xp is np and not np.isfinite(x).all():
        return np.full_like(x, np.nan)
    cutoff = len(x) * float(xp.finfo(x.dtype).eps)
    return xp.linalg.pinv(x, rtol=cutoff, hermitian=True)


def gathered(xp: Any, x: Float[Any, "*s"]) -> Float[Any, "*s"]:
    """The whole array on every device, for what has no rule on an Explicit mesh."""
    if xp is np:
        return x
    from .._batch import whole

    return whole(x)


def polar(xp: Any, x: Float[Any, "m n"]) -> Float[Any, "m n"]:
    """The nearest matrix with orthonormal columns, or rows if there are fewer."""
    u, _, vt = svd(xp, x)
    return u @ vt


def merge_matrices(
    matrix_leaf: Callable,
    base: Tree,
    trees: Sequence[Tree],
    matrices: Tree | None,
    where: Tree | None,
) -> Tree:
    """merge, with matrix_leaf(leaf, stack, is_matrix) on every leaf."""
    from ._beside import spread
    from ._trees import merge

    wanted = spread("matrices", True if matrices is None else matrices, base, where)

    def merge_leaves(pairs):
        for on, (leaf, stack) in zip(wanted, pairs, strict=True):
            yield matrix_leaf(leaf, stack, bool(on))

    return merge(merge_leaves, base, trees, where)
