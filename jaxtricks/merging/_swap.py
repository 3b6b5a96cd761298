"""One model into another, entry by entry: where near, or where it matters."""

from typing import Any

import numpy as np
from jaxtyping import Float

from .._check import at_least, of_shape
from ._namespace import Number, Tree, at_least_f32, namespace, number
from ._trees import from_base


def nearswap(
    base: Tree, tree: Tree, *, t: Number = 1e-4, where: Tree | None = None
) -> Tree:
    """The base, moved towards another model where both are nearly the same.

    merged = base + min(1, t / |tree - base|) (tree - base)

    Args:
      base: the pytree to move; it gives the result its dtypes and the leaves that are
        not merged: integers, keys, those `where` rules out.
      tree: a pytree of the structure of `base`.
      t: >= 0; an entry nearer than this is swapped, others move by t; default that of
        the first model so merged. May be traced.
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like `base`, computed in at least f32; t=0 gives `base`.
    Gradient: smooth in t and trees, but where |tree - base| = t.
    Cost: one pass.
    Raises: ValueError for trees that differ (with the paths), for a negative t.
    Source: definition (mergekit's nearswap). Differs: none.
    Example:
      >>> import jax.numpy as jnp
      >>> nearswap(jnp.zeros(2), jnp.array([0.1, -3.0]), t=0.5)
      Array([ 0.1, -0.5], dtype=float32)
    """
    leaf = lambda b, x: nearswap_leaf(b, x[0], t=t)  # noqa: E731
    return from_base(leaf, base, [tree], where)


def nearswap_leaf(
    base: Float[Any, "*shape"], x: Float[Any, "*shape"], *, t: Number = 1e-4
) -> Float[Any, "*shape"]:
    """One parameter of `nearswap`.

    merged = base + min(1, t / |x - base|) (x - base)

    Args:
      base: float[*shape], the parameter to move.
      x: float[*shape], the parameter in the other model.
      t: >= 0; an entry nearer than this is swapped, others move by t.
    Returns:
      f32[*shape], numpy's unless an argument is jax's.
    Gradient: as `nearswap`.
    Cost: as `nearswap`.
    Raises: ValueError for a negative t, for an x of another shape.
    Source: as `nearswap`.
    Example:
      >>> import numpy as np
      >>> nearswap_leaf(np.zeros(2), np.array([0.1, -3.0]), t=0.5)
      array([ 0.1, -0.5])
    """
    at_least("t", t, 0)
    xp, base, x = _pair(base, x, t)
    t = number(xp, t, base)
    share = xp.clip(t / xp.maximum(xp.abs(base - x), 1e-6), 0, 1)
    return share * x + (1 - share) * base


def arcee_fusion(base: Tree, tree: Tree, *, where: Tree | None = None) -> Tree:
    """The base, with another model's entries where its change matters most.

    importance = |tree - base| KL(softmax(tree) || softmax(base)), along the last axis
    merged = tree where importance >= q2 + 1.5 (q3 - q1), its quartiles; else base

    Args:
      base: the pytree to change; it gives the result its dtypes and the leaves that are
        not merged: integers, keys, those `where` rules out.
      tree: a pytree of the structure of `base`.
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like `base`, computed in at least f32.
    Gradient: of the chosen entries; the choice is constant.
    Cost: three quartiles of each leaf, 32 passes of counting each; or a partition.
    Raises: ValueError for trees that differ (with the paths).
    Source: definition (mergekit's arcee_fusion). Differs: exact quartiles, where
      mergekit samples leaves of more than a million entries.
    Example:
      >>> import jax.numpy as jnp
      >>> base = jnp.zeros((4, 2))
      >>> tree = jnp.array([[0.1, 0.0], [0.0, 0.1], [0.2, 0.1], [3.0, 0.0]])
      >>> arcee_fusion(base, tree)[3]
      Array([3., 0.], dtype=float32)
    """
    return from_base(lambda b, x: arcee_fusion_leaf(b, x[0]), base, [tree], where)


def arcee_fusion_leaf(
    base: Float[Any, "*shape"], x: Float[Any, "*shape"]
) -> Float[Any, "*shape"]:
    """One parameter of `arcee_fusion`.

    importance = |x - base| KL(softmax(x) || softmax(base)), along the last axis
    merged = x where importance >= q2 + 1.5 (q3 - q1), its quartiles; else base

    Args:
      base: float[*shape], the parameter to change.
      x: float[*shape], the parameter in the other model.
    Returns:
      f32[*shape], numpy's unless an argument is jax's.
    Gradient: as `arcee_fusion`.
    Cost: as `arcee_fusion`.
    Raises: ValueError for an x of another shape.
    Source: as `arcee_fusion`.
    Example:
      >>> import numpy as np
      >>> x = np.array([[0.1, 0.0], [0.0, 0.1], [0.2, 0.1], [3.0, 0.0]])
      >>> arcee_fusion_leaf(np.zeros((4, 2)), x)[3]
      array([3., 0.])
    """
    xp, base, x = _pair(base, x)
    if base.size == 0:
        return base
    p, q = _softmax(xp, x) + 1e-8, _softmax(xp, base) + 1e-8
    divergence = xp.sum(p * xp.log(p / q), axis=-1, keepdims=True)
    importance = xp.abs(x - base) * divergence.reshape(divergence.shape[: x.ndim])
    last = base.size - 1
    q1, q2, q3 = _smallest(xp, importance, [last // 4, last // 2, 3 * last // 4])
    change = x - base
    taken = (importance >= q2 + 1.5 * (q3 - q1)) | ~xp.isfinite(change)
    return base + xp.where(taken, change, 0)


def _pair(base, x, *others):
    """The namespace, and both in one dtype."""
    of_shape(np.shape(base), x=x)
    xp = namespace(base, x, *others)
    base, x = at_least_f32(xp, base), at_least_f32(xp, x)
    wide = xp.result_type(base, x)
    return xp, base.astype(wide), x.astype(wide)


def _softmax(xp, x):
    x = xp.atleast_1d(x)
    e = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return e / xp.sum(e, axis=-1, keepdims=True)


def _smallest(xp, x, ranks: list[int]) -> list:
    """The entries that a sort would have at these places."""
    if xp is np:
        ordered = np.partition(x, ranks, axis=None)
        return [ordered[i] for i in ranks]
    from ._select import smallest

    return smallest(x, tuple(ranks))
