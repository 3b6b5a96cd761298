"""TIES: trim small changes, elect a sign, merge those that agree."""

from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PyTree, Real, ScalarLike

from .. import _safe as safe
from .._check import between, one_of
from .._mask import at_least_f32
from ._select import keep_largest
from ._trees import along, as_coefficients, merge


def ties(
    base: PyTree,
    trees: Sequence[PyTree],
    *,
    weights: Real[ArrayLike, " n"] | Sequence | None = None,
    density: ScalarLike | Float[ArrayLike, " n"] | Sequence = 0.2,
    scope: Literal["tensor", "global"] = "tensor",
    sign: Literal["total", "frequency"] = "total",
    normalize: bool = True,
    scale: ScalarLike = 1.0,
    where: PyTree[bool] | None = None,
) -> PyTree:
    """Merges fine-tunes of one base without letting their changes cancel.

    t_i = w_i (tree_i - base), kept where largest; s = sign(sum_i t_i)
    merged = base + scale sum_agreeing t_i / sum_agreeing w_i, agreeing: sign(t_i) = s

    Args:
      base: the pytree that all were fine-tuned from; it gives the result its dtypes and
        the leaves that are not merged: integers, keys, those `where` rules out.
      trees: n pytrees of the structure of `base`.
      weights: float[n]; None is all 1. May be traced.
      density: in [0, 1], one for all models or float[n]: of every model floor(density *
        size) changes are kept, one at least unless it is 0; first ones among equals.
        May be traced.
      scope: "tensor" trims each leaf, "global" each model as a whole.
      sign: "total" elects by the sum of changes, "frequency" by the count of signs; a
        draw is +.
      normalize: divide by the sum of agreeing weights; False gives their sum (static).
      scale: the paper's lambda. May be traced.
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like `base`, computed in at least f32; density=0 gives `base`.
    Gradient: smooth in trees, weights and scale while the kept entries and signs stay
      the same; those are constants, so density gets 0.
    Cost: 31 passes of counting; a copy of one leaf of all trees, of all for "global".
    Raises: ValueError for no trees, for trees that differ (with the paths), for weights
      or densities that are not one a tree, for a density out of range, for 2^31 or more
      entries to trim at once.
    Source: Yadav et al., "TIES-Merging: Resolving Interference When Merging Models",
      2023, arXiv:2306.01708, alg. 1. Differs: takes weights; trims per tensor unless
      told (the authors: "global"); keeps exactly that many; a draw is + (the authors:
      the sign that is elected more often).
    Example:
      >>> a, b = jnp.array([3.0, 1.0, -2.0]), jnp.array([1.0, 0.0, 4.0])
      >>> ties(jnp.zeros(3), [a, b], density=0.7)  # drops 1 and 0, then -2
      Array([2., 0., 4.], dtype=float32)
    """
    if not trees:
        raise ValueError("trees: wanted at least one, came none")
    one_of("scope", scope, ("tensor", "global"))
    w = as_coefficients("weights", weights, len(trees))

    def merge_leaves(pairs):
        # What is trimmed together: all leaves, or each by itself.
        for group in [list(pairs)] if scope == "global" else ([pair] for pair in pairs):
            kept = _trim([stack - leaf[None] for leaf, stack in group], density)
            for (leaf, _), changes in zip(group, kept, strict=True):
                yield leaf + scale * _elect(changes, w, sign, normalize)

    return merge(merge_leaves, base, trees, where)


def ties_leaf(
    stack: Float[ArrayLike, " n *shape"],
    *,
    weights: Real[ArrayLike, " n"] | Sequence | None = None,
    density: ScalarLike | Float[ArrayLike, " n"] | Sequence = 0.2,
    sign: Literal["total", "frequency"] = "total",
    normalize: bool = True,
) -> Float[Array, "*shape"]:
    """The merged change of one parameter; `ties` without base and scale.

    t_i = w_i stack_i, kept where largest; s = sign(sum_i t_i)
    merged = sum_agreeing t_i / sum_agreeing w_i, agreeing: sign(t_i) = s

    Args:
      stack: float[n, *shape], the changes of n models.
      weights: float[n]; None is all 1. May be traced.
      density: in [0, 1], one or float[n]; of every model floor(density * size) changes
        are kept, one at least unless it is 0. May be traced.
      sign: "total" elects by the sum of changes, "frequency" by the count of signs.
      normalize: divide by the sum of agreeing weights (static).
    Returns:
      f32[*shape].
    Gradient: as `ties`.
    Cost: as `ties`.
    Raises: ValueError for weights or densities that are not one a model.
    Source: as `ties`.
    Example:
      >>> ties_leaf(jnp.array([[3.0, 1.0, -2.0], [1.0, 0.0, 4.0]]), density=0.7)
      Array([2., 0., 4.], dtype=float32)
    """
    stack = at_least_f32(stack)
    w = as_coefficients("weights", weights, stack.shape[0])
    (kept,) = _trim([stack], density)
    return _elect(kept, w, sign, normalize)


def _trim(stacks, density) -> list[Float[Array, "n ..."]]:
    """Zero but at the largest entries of each model, over all stacks together."""
    if not stacks:
        return []
    n, size = stacks[0].shape[0], sum(x[0].size for x in stacks)
    if size >= 2**31:
        raise ValueError(f"scope: can trim less than 2^31 entries at once, came {size}")
    k = _how_many(density, size, n)
    masks = keep_largest(stacks, k)
    return [jnp.where(m, x, 0) for m, x in zip(masks, stacks, strict=True)]


def _how_many(density, size: int, n: int) -> Int[Array, " n"]:
    """floor(density * size) for each model, one at least; exact for Python numbers."""
    between("density", density, 0, 1)
    if isinstance(density, int | float):
        one = min(size, int(density > 0))
        return jnp.full(n, max(one, int(density * size)), jnp.int32)
    if isinstance(density, list | tuple):
        if len(density) != n:
            raise ValueError(f"density: wanted one or {n}, came {len(density)}")
        return jnp.concatenate([_how_many(d, size, 1) for d in density])
    density = at_least_f32(density)
    if density.shape not in ((), (n,)):
        raise ValueError(f"density: wanted shape () or {(n,)}, came {density.shape}")
    one = jnp.where(density > 0, min(size, 1), 0)
    k = jnp.clip(jnp.floor(density * size), one, size).astype(jnp.int32)
    return jnp.broadcast_to(k, (n,))


def _elect(
    kept: Float[Array, " n *shape"], weights: Float[Array, " n"], sign, normalize
) -> Float[Array, "*shape"]:
    """The weighted mean of the entries that have the elected sign."""
    one_of("sign", sign, ("total", "frequency"))
    w = along(weights, kept)
    weighted = w * kept
    votes = weighted if sign == "total" else jnp.sign(weighted)
    positive = jnp.sum(votes, axis=0, keepdims=True) >= 0
    agree = jnp.where(positive, weighted > 0, weighted < 0)
    total = jnp.sum(jnp.where(agree, weighted, 0), axis=0)
    if not normalize:
        return total
    share = jnp.sum(jnp.where(agree, w, 0), axis=0)
    return total / safe.nonzero(share)
