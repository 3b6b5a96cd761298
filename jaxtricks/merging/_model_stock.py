"""Model Stock: how far to go from the base, by the angle between fine-tunes."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float

from ._namespace import Tree, deltas, dot, norm
from ._trees import from_base


def model_stock(
    base: Tree,
    trees: Sequence[Tree],
    *,
    rows: bool = False,
    where: Tree | None = None,
) -> Tree:
    """A few fine-tunes of one base, averaged and drawn to it; without coefficients.

    c = mean_ij cos(x_i - base, x_j - base), t = n c / (1 + (n - 1) c)
    merged = t mean_i x_i + (1 - t) base

    Args:
      base: the pytree that all were fine-tuned from; it gives the result its dtypes and
        the leaves that are not merged: integers, keys, those `where` rules out.
      trees: n >= 2 pytrees of the structure of `base`.
      rows: an angle for each row, the last axis, in place of one for each leaf
        (mergekit's filter_wise) (static).
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like `base`, computed in at least f32; the base where the angle says so:
      changes that are orthogonal, zero, or cancel.
    Gradient: smooth in trees, but where a change is 0.
    Cost: n^2 / 2 inner products; a copy of one leaf of all trees at a time.
    Raises: ValueError for less than two trees, for trees that differ (with the paths).
    Source: Jang et al., "Model Stock: All we need is just a few fine-tuned models",
      2024, arXiv:2403.19522. Differs: as mergekit, products of norms are at least
      1e-6, and t = 0 where 1 + (n - 1) c is below 1e-6; the mean of all angles, where
      they differ.
    Example:
      >>> import jax.numpy as jnp
      >>> trees = [jnp.array([2.0, 0.0]), jnp.array([2.0, 2.0])]  # 45 degrees
      >>> model_stock(jnp.zeros(2), trees)
      Array([1.6569, 0.8284], dtype=float32)
    """
    _several("trees", len(trees))

    def leaf(x, stack):
        return model_stock_leaf(x, stack, rows=rows)

    return from_base(leaf, base, trees, where)


def model_stock_leaf(
    base: Float[Any, "*shape"], stack: Float[Any, " n *shape"], *, rows: bool = False
) -> Float[Any, "*shape"]:
    """One parameter of `model_stock`.

    c = mean_ij cos(x_i - base, x_j - base), t = n c / (1 + (n - 1) c)
    merged = t mean_i x_i + (1 - t) base

    Args:
      base: float[*shape], the parameter that all were fine-tuned from.
      stack: float[n, *shape], the parameter in n >= 2 models.
      rows: an angle for each row, the last axis (static).
    Returns:
      f32[*shape], numpy's unless an argument is jax's.
    Gradient: as `model_stock`.
    Cost: as `model_stock`.
    Raises: ValueError for less than two models, for a base of another shape.
    Source: as `model_stock`.
    Example:
      >>> import numpy as np
      >>> model_stock_leaf(np.zeros(2), np.array([[2.0, 0.0], [2.0, 2.0]]))
      array([1.6569, 0.8284])
    """
    xp, base, changes = deltas(base, stack)
    n = changes.shape[0]
    _several("stack", n)
    axis = -1 if rows and base.ndim else None
    sizes = [norm(xp, x, axis) for x in changes]
    cosines = [
        xp.clip(
            dot(xp, changes[i], changes[j], axis)
            / xp.maximum(sizes[i] * sizes[j], 1e-6),
            -1,
            1,
        )
        for i in range(n)
        for j in range(i)
    ]
    cos = xp.mean(xp.stack(cosines), axis=0)
    below = 1 + (n - 1) * cos
    singular = xp.abs(below) < 1e-6
    t = xp.where(singular, 0, n * cos / xp.where(singular, 1, below))
    return base + t * xp.mean(changes, axis=0)


def _several(name: str, n: int) -> None:
    if n < 2:
        raise ValueError(f"{name}: wanted at least two models, came {n}")
