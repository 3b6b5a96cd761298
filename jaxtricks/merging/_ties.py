"""TIES: trim small changes, elect a sign, merge those that agree."""

from collections.abc import Sequence
from typing import Any, Literal

from jaxtyping import Float

from .._check import one_of
from ._consensus import Divisor, Sign, combine
from ._namespace import (
    Coefficients,
    Number,
    Tree,
    coefficients,
    deltas,
    namespace,
    number,
)
from ._sparsify import keep, largest
from ._trees import merge


def ties(
    base: Tree,
    trees: Sequence[Tree],
    *,
    weights: Coefficients = None,
    density: Number | Float[Any, " n"] | Sequence = 0.2,
    scope: Literal["tensor", "global"] = "tensor",
    sign: Sign = "total",
    normalize: bool = True,
    divisor: Divisor = "weights",
    rescale: Literal["l1"] | None = None,
    scale: Number = 1.0,
    where: Tree | None = None,
) -> Tree:
    """Merges fine-tunes of one base without letting their changes cancel.

    t_i = tree_i - base, kept where largest; s = sign(sum_i w_i t_i)
    merged = base + scale sum w_i t_i / sum w_i, over those with sign(w_i t_i) = s

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
      normalize: divide by what agrees; False gives the sum of it (static).
      divisor: "weights" elects by w_i t_i and divides by the sum of weights, "count"
        elects by t_i and divides by how many agree (the authors', peft's).
      rescale: "l1" gives what is kept the sum of magnitudes of all; None does not.
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
      told (the authors: "global", and one entry more); a draw is + (the authors: the
      sign that is elected more often). As it is: mergekit's; peft's is "count", and
      may keep none of a tensor (breadcrumbs with gamma=0 and consensus="ties").
    Example:
      >>> import jax.numpy as jnp
      >>> a, b = jnp.array([3.0, 1.0, -2.0]), jnp.array([1.0, 0.0, 4.0])
      >>> ties(jnp.zeros(3), [a, b], density=0.7)  # drops 1 and 0, then -2
      Array([2., 0., 4.], dtype=float32)
    """
    one_of("scope", scope, ("tensor", "global"))

    def elect(xp, x, mask):
        w = coefficients(xp, "weights", weights, x)
        kept = keep(xp, x, mask, rescale)
        return combine(xp, kept, w, sign=sign, normalize=normalize, divisor=divisor)

    def merge_leaves(pairs):
        # What is trimmed together: all leaves, or each by itself.
        for group in [list(pairs)] if scope == "global" else ([pair] for pair in pairs):
            xp = namespace(*group[0]) if group else None
            changes = [stack - leaf[None] for leaf, stack in group]
            masks = largest(xp, changes, density)
            for (leaf, _), x, mask in zip(group, changes, masks, strict=True):
                yield leaf + scale * elect(xp, x, mask)

    return merge(merge_leaves, base, trees, where)


def ties_leaf(
    base: Float[Any, "*shape"],
    stack: Float[Any, " n *shape"],
    *,
    weights: Coefficients = None,
    density: Number | Float[Any, " n"] | Sequence = 0.2,
    sign: Sign = "total",
    normalize: bool = True,
    divisor: Divisor = "weights",
    rescale: Literal["l1"] | None = None,
    scale: Number = 1.0,
) -> Float[Any, "*shape"]:
    """One parameter of `ties`, trimmed by itself.

    t_i = stack_i - base, kept where largest; s = sign(sum_i w_i t_i)
    merged = base + scale sum w_i t_i / sum w_i, over those with sign(w_i t_i) = s

    Args:
      base: float[*shape], the parameter that all were fine-tuned from.
      stack: float[n, *shape], the parameter in n models.
      weights: float[n]; None is all 1. May be traced.
      density: in [0, 1], one or float[n]; of every model floor(density * size) changes
        are kept, one at least unless it is 0. May be traced.
      sign: "total" elects by the sum of changes, "frequency" by the count of signs.
      normalize: divide by what agrees (static).
      divisor: "weights" elects by w_i t_i and divides by the sum of weights, "count"
        elects by t_i and divides by how many agree.
      rescale: "l1" gives what is kept the sum of magnitudes of all.
      scale: of the merged change. May be traced.
    Returns:
      f32[*shape], numpy's unless an argument is jax's.
    Gradient: as `ties`.
    Cost: as `ties`; a partition in numpy.
    Raises: ValueError for weights or densities that are not one a model.
    Source: as `ties`.
    Example:
      >>> import numpy as np
      >>> changed = np.float32([[3.0, 1.0, -2.0], [1.0, 0.0, 4.0]])
      >>> ties_leaf(np.zeros(3), changed, density=0.7)
      array([2., 0., 4.])
    """
    xp, base, changes = deltas(base, stack, weights, density, scale)
    w = coefficients(xp, "weights", weights, changes)
    (mask,) = largest(xp, [changes], density)
    kept = keep(xp, changes, mask, rescale)
    merged = combine(xp, kept, w, sign=sign, normalize=normalize, divisor=divisor)
    return base + number(xp, scale, base) * merged
