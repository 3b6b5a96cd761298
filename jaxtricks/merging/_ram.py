"""RAM: average what several models changed, keep what only one did."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float

from .._check import at_least
from ._namespace import Number, Tree, deltas, number
from ._trees import from_base


def ram(
    base: Tree,
    trees: Sequence[Tree],
    *,
    r: Number = 0.0,
    alpha: Number = 0.2,
    epsilon: Number = 1e-5,
    where: Tree | None = None,
) -> Tree:
    """Agents trained by reinforcement, whose sparse changes a mean would dilute.

    t_i = tree_i - base, changed_i = |t_i| > epsilon, c = sum_i changed_i
    merged = base + (sum_changed t_i / c, or lambda_i t_i where c = 1)
    lambda_i = 1 + r min(alpha, shared entries of i / unique entries of i)

    Args:
      base: the pytree that all were trained from; it gives the result its dtypes and
        the leaves that are not merged: integers, keys, those `where` rules out.
      trees: n pytrees of the structure of `base`.
      r: how much unique changes are raised; 0 is RAM, 0.1 mergekit's ramplus_tl. May be
        traced.
      alpha: the largest ratio that counts; default mergekit's. May be traced.
      epsilon: what is no change; default mergekit's. May be traced.
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like `base`, computed in at least f32.
    Gradient: smooth in trees, r and alpha while the same entries are changed; those are
      constants, so epsilon gets 0.
    Cost: two passes; a copy of one leaf of all trees at a time.
    Raises: ValueError for no trees, for trees that differ (with the paths), for a
      negative epsilon.
    Source: Yuan et al., "Behavior Knowledge Merge in Reinforced Agentic Models", 2026,
      arXiv:2601.13572. Differs: counts the ratio of RAM+ leaf by leaf, as
      mergekit's ramplus_tl; the paper over the whole model.
    Example:
      >>> import jax.numpy as jnp
      >>> a, b = jnp.array([3.0, 1.0, 0.0]), jnp.array([1.0, 0.0, 0.0])
      >>> ram(jnp.zeros(3), [a, b], r=0.1)
      Array([2.  , 1.02, 0.  ], dtype=float32)
    """

    def leaf(x, stack):
        return ram_leaf(x, stack, r=r, alpha=alpha, epsilon=epsilon)

    return from_base(leaf, base, trees, where)


def ram_leaf(
    base: Float[Any, "*shape"],
    stack: Float[Any, " n *shape"],
    *,
    r: Number = 0.0,
    alpha: Number = 0.2,
    epsilon: Number = 1e-5,
) -> Float[Any, "*shape"]:
    """One parameter of `ram`.

    t_i = stack_i - base, changed_i = |t_i| > epsilon, c = sum_i changed_i
    merged = base + (sum_changed t_i / c, or lambda_i t_i where c = 1)

    Args:
      base: float[*shape], the parameter that all were trained from.
      stack: float[n, *shape], the parameter in n models.
      r: how much unique changes are raised; 0 is RAM.
      alpha: the largest ratio of shared to unique entries that counts.
      epsilon: what is no change.
    Returns:
      f32[*shape], numpy's unless an argument is jax's.
    Gradient: as `ram`.
    Cost: as `ram`.
    Raises: ValueError for a negative epsilon, for a base of another shape.
    Source: as `ram`.
    Example:
      >>> import numpy as np
      >>> ram_leaf(np.zeros(2), np.array([[3.0, 1.0], [1.0, 0.0]]))
      array([2., 1.])
    """
    at_least("epsilon", epsilon, 0)
    xp, base, changes = deltas(base, stack, r, alpha, epsilon)
    r, alpha, epsilon = (number(xp, x, base) for x in (r, alpha, epsilon))
    changed = ~(xp.abs(changes) <= epsilon)  # a NaN is a change
    count = xp.sum(changed, axis=0, keepdims=True)
    axes = tuple(range(1, changes.ndim))
    dtype = changes.dtype

    def entries(where):
        number = xp.sum(changed & where, axis=axes, keepdims=True)
        return number.astype(dtype)

    unique = entries(count == 1)
    # Without a unique entry there is nothing to raise.
    ratio = entries(count > 1) / xp.maximum(unique, 1)
    raised = 1 + r * xp.clip(ratio, 0, alpha)
    share = xp.where(count == 1, raised, 1 / xp.maximum(count, 1).astype(dtype))
    return base + xp.sum(xp.where(changed, changes * share, 0), axis=0)
