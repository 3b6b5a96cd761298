"""DARE and DELLA: drop most changes by chance, scale up the rest, then combine."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from jaxtyping import Bool, Float

from .._check import between, one_of
from ._consensus import Consensus, Divisor, Sign, combine
from ._namespace import (
    Coefficients,
    Number,
    Tree,
    along,
    coefficients,
    deltas,
    number,
)
from ._sparsify import chances, check_epsilon, flip, keep
from ._trees import merge


def dare(
    base: Tree,
    trees: Sequence[Tree],
    *,
    density: Number | Float[Any, " n"] | Sequence,
    key: Any = None,
    mask: Sequence[Tree] | None = None,
    weights: Coefficients = None,
    rescale: Literal["1/p", "l1"] | None = "1/p",
    consensus: Consensus = "linear",
    sign: Sign = "total",
    normalize: bool = False,
    divisor: Divisor = "weights",
    scale: Number = 1.0,
    where: Tree | None = None,
) -> Tree:
    """Fine-tunes of one base made sparse by chance, so that they collide less.

    t_i = mask_i (tree_i - base) / density, mask_i ~ Bernoulli(density)
    merged = base + scale sum_i w_i t_i

    Args:
      base: the pytree that all were fine-tuned from; it gives the result its dtypes and
        the leaves that are not merged: integers, keys, those `where` rules out.
      trees: n pytrees of the structure of `base`.
      density: in [0, 1], one or float[n]: 1 - p, the chance of a change to be kept.
      key: a typed key, wanted unless mask is given. Each leaf has its own.
      mask: n pytrees of bools like `base`, instead of chance: True keeps.
      weights: float[n]; None is all 1. May be traced.
      rescale: "1/p" divides by the density (the paper's, peft's), "l1" restores each
        model's sum of magnitudes (mergekit's), None leaves it.
      consensus: "linear" sums, "ties" elects a sign first.
      sign, normalize, divisor: as in `ties`; to "linear" all agree.
      scale: of the merged change. May be traced.
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like `base`, computed in at least f32; density=1 is task arithmetic.
    Gradient: smooth in trees, weights, scale, and density by "1/p"; the mask is
      constant, and so are elected signs.
    Cost: a random number an entry; a copy of one leaf of all trees at a time.
    Raises: ValueError for no trees, for trees that differ (with the paths), for
      coefficients that are not one a tree, for neither or both of key and mask.
    Source: Yu et al., "Language Models are Super Mario: Absorbing Abilities from
      Homologous Models as a Free Lunch", 2023, arXiv:2311.03099. Differs: none.
    Example:
      >>> import jax.numpy as jnp
      >>> mask = [jnp.array([True, False, True])]
      >>> dare(jnp.zeros(3), [jnp.array([3.0, 1.0, -2.0])], density=0.5, mask=mask)
      Array([ 6.,  0., -4.], dtype=float32)
    """

    def leaf(x, stack, **chance):
        return dare_leaf(x, stack, density=density, weights=weights, rescale=rescale,
            consensus=consensus, sign=sign, normalize=normalize, divisor=divisor,
            scale=scale, **chance)  # fmt: skip

    return _merge_by_chance(leaf, base, trees, where, key, mask)


def dare_leaf(
    base: Float[Any, "*shape"],
    stack: Float[Any, " n *shape"],
    *,
    density: Number | Float[Any, " n"] | Sequence,
    key: Any = None,
    mask: Bool[Any, " n *shape"] | None = None,
    weights: Coefficients = None,
    rescale: Literal["1/p", "l1"] | None = "1/p",
    consensus: Consensus = "linear",
    sign: Sign = "total",
    normalize: bool = False,
    divisor: Divisor = "weights",
    scale: Number = 1.0,
) -> Float[Any, "*shape"]:
    """One parameter of `dare`.

    t_i = mask_i (stack_i - base) / density, mask_i ~ Bernoulli(density)
    merged = base + scale sum_i w_i t_i

    Args:
      base: float[*shape], the parameter that all were fine-tuned from.
      stack: float[n, *shape], the parameter in n models.
      density: in [0, 1], one or float[n]; the chance of a change to be kept.
      key: a typed key, or a numpy.random.Generator; wanted unless mask is given.
      mask: bool[n, *shape], instead of chance: True keeps.
      weights: float[n]; None is all 1. May be traced.
      rescale: "1/p", "l1" or None, as in `dare`.
      consensus: "linear" sums, "ties" elects a sign first.
      sign, normalize, divisor: as in `ties`; to "linear" all agree.
      scale: of the merged change. May be traced.
    Returns:
      f32[*shape], numpy's unless an argument is jax's.
    Gradient: as `dare`.
    Cost: as `dare`.
    Raises: ValueError for coefficients that are not one a model, for neither or
      both of key and mask, for a mask of another shape.
    Source: as `dare`.
    Example:
      >>> import numpy as np
      >>> keep = np.array([[True, False, True]])
      >>> dare_leaf(np.zeros(3), np.array([[3.0, 1, -2]]), density=0.5, mask=keep)
      array([ 6.,  0., -4.])
    """
    one_of("rescale", rescale or "1/p", ("1/p", "l1"))
    for d in density if isinstance(density, list | tuple) else (density,):
        between("density", d, 0, 1)
    xp, base, changes = deltas(base, stack, weights, density, scale, key, mask)
    p = coefficients(xp, "density", density, changes, spread=True)
    chance = xp.broadcast_to(along(p, changes), changes.shape)
    kept = keep(xp, changes, _mask(xp, chance, key, mask), rescale, chance)
    w = coefficients(xp, "weights", weights, changes)
    merged = combine(xp, kept, w, consensus=consensus, sign=sign, normalize=normalize,
        divisor=divisor)  # fmt: skip
    return base + number(xp, scale, base) * merged


def della(
    base: Tree,
    trees: Sequence[Tree],
    *,
    density: Number | Float[Any, " n"] | Sequence,
    epsilon: Number | Float[Any, " n"] | Sequence = 0.15,
    key: Any = None,
    mask: Sequence[Tree] | None = None,
    weights: Coefficients = None,
    rescale: Literal["1/p", "l1"] | None = "1/p",
    consensus: Consensus = "ties",
    sign: Sign = "total",
    normalize: bool = True,
    divisor: Divisor = "weights",
    scale: Number = 1.0,
    where: Tree | None = None,
) -> Tree:
    """`dare` whose small changes are dropped more often than its large ones.

    p = density - epsilon + 2 epsilon rank / (size - 1), by magnitude in each row
    t_i = mask_i (tree_i - base) / p, mask_i ~ Bernoulli(p); then as `ties`

    Args:
      base: the pytree that all were fine-tuned from; it gives the result its dtypes and
        the leaves that are not merged: integers, keys, those `where` rules out.
      trees: n pytrees of the structure of `base`.
      density: in [0, 1], one or float[n]: the mean chance of a change to be kept; 0 and
        1 keep none and all.
      epsilon: one or float[n], density -+ epsilon in (0, 1); default mergekit's.
      key: a typed key, wanted unless mask is given. Each leaf has its own.
      mask: n pytrees of bools like `base`, instead of chance: True keeps.
      weights: float[n]; None is all 1. May be traced.
      rescale: "1/p" divides by each chance (the paper's), "l1" restores each model's
        sum of magnitudes (mergekit's), None leaves it.
      consensus: "ties" elects a sign first, "linear" sums (della_linear).
      sign, normalize, divisor: as in `ties`; to "linear" all agree.
      scale: of the merged change. May be traced.
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like `base`, computed in at least f32.
    Gradient: smooth in trees, weights, scale, and density by "1/p"; mask, ranks and
      signs are constants.
    Cost: two sorts of each leaf of each tree.
    Raises: ValueError for no trees, for trees that differ (with the paths), for
      coefficients that are not one a tree, for neither or both of key and mask, for
      chances out of (0, 1).
    Source: Deep et al., "DELLA-Merging: Reducing Interference in Model Merging through
      Magnitude-Based Sampling", 2024, arXiv:2406.11617. Differs: epsilon is
      mergekit's, half the width of the chances; a row is axis 1, or all of a vector.
    Example:
      >>> import jax.numpy as jnp
      >>> mask = [jnp.array([True, False, True])]  # chances 0.75, 0.25, 0.5
      >>> tree = jnp.array([3.0, 1.0, -2.0])
      >>> della(jnp.zeros(3), [tree], density=0.5, epsilon=0.25, mask=mask)
      Array([ 4.,  0., -4.], dtype=float32)
    """

    def leaf(x, stack, **chance):
        return della_leaf(x, stack, density=density, epsilon=epsilon, weights=weights,
            rescale=rescale, consensus=consensus, sign=sign, normalize=normalize,
            divisor=divisor, scale=scale, **chance)  # fmt: skip

    return _merge_by_chance(leaf, base, trees, where, key, mask)


def della_leaf(
    base: Float[Any, "*shape"],
    stack: Float[Any, " n *shape"],
    *,
    density: Number | Float[Any, " n"] | Sequence,
    epsilon: Number | Float[Any, " n"] | Sequence = 0.15,
    key: Any = None,
    mask: Bool[Any, " n *shape"] | None = None,
    weights: Coefficients = None,
    rescale: Literal["1/p", "l1"] | None = "1/p",
    consensus: Consensus = "ties",
    sign: Sign = "total",
    normalize: bool = True,
    divisor: Divisor = "weights",
    scale: Number = 1.0,
) -> Float[Any, "*shape"]:
    """One parameter of `della`.

    p = density - epsilon + 2 epsilon rank / (size - 1), by magnitude in each row
    t_i = mask_i (stack_i - base) / p, mask_i ~ Bernoulli(p); then as `ties`

    Args:
      base: float[*shape], the parameter that all were fine-tuned from.
      stack: float[n, *shape], the parameter in n models.
      density: in [0, 1], one or float[n]; the mean chance of a change to be kept.
      epsilon: one or float[n], density -+ epsilon in (0, 1).
      key: a typed key, or a numpy.random.Generator; wanted unless mask is given.
      mask: bool[n, *shape], instead of chance: True keeps.
      weights: float[n]; None is all 1. May be traced.
      rescale: "1/p", "l1" or None, as in `della`.
      consensus: "ties" elects a sign first, "linear" sums.
      sign, normalize, divisor: as in `ties`; to "linear" all agree.
      scale: of the merged change. May be traced.
    Returns:
      f32[*shape], numpy's unless an argument is jax's.
    Gradient: as `della`.
    Cost: as `della`.
    Raises: ValueError for coefficients that are not one a model, for neither or
      both of key and mask, for chances out of (0, 1).
    Source: as `della`.
    Example:
      >>> import numpy as np
      >>> keep, stack = np.array([[True, False, True]]), np.array([[3.0, 1.0, -2.0]])
      >>> della_leaf(np.zeros(3), stack, density=0.5, epsilon=0.25, mask=keep)
      array([ 4.,  0., -4.])
    """
    one_of("rescale", rescale or "1/p", ("1/p", "l1"))
    check_epsilon(density, epsilon)
    xp, base, changes = deltas(base, stack, weights, density, epsilon, scale, key, mask)
    p = coefficients(xp, "density", density, changes, spread=True)
    e = coefficients(xp, "epsilon", epsilon, changes, spread=True)
    chance = chances(xp, changes, p, e)
    kept = keep(xp, changes, _mask(xp, chance, key, mask), rescale, chance)
    w = coefficients(xp, "weights", weights, changes)
    merged = combine(xp, kept, w, consensus=consensus, sign=sign, normalize=normalize,
        divisor=divisor)  # fmt: skip
    return base + number(xp, scale, base) * merged


def _check_chance(key: Any, mask: Any) -> None:
    if (key is None) == (mask is None):
        came = "neither" if key is None else "both"
        raise ValueError(f"key: wanted a key or a mask, came {came}")


def _mask(xp, chance, key, mask) -> Bool[Any, "n ..."]:
    _check_chance(key, mask)
    if mask is None:
        return flip(xp, chance, key)
    if mask.shape != chance.shape:
        raise ValueError(f"mask: wanted shape {chance.shape}, came {mask.shape}")
    return mask


def _merge_by_chance(
    leaf: Callable, base: Tree, trees: Sequence[Tree], where: Any, key: Any, mask: Any
) -> Tree:
    """`merge` by leaf(base, stack, key=), one key a leaf, or leaf(..., mask=)."""
    _check_chance(key, mask)

    def merge_leaves(pairs):
        for i, (x, stack, *masks) in enumerate(pairs):
            if masks:
                yield leaf(x, stack, mask=masks[0])
            else:
                yield leaf(x, stack, key=_fold_in(key, i))

    return merge(merge_leaves, base, trees, where, mask=mask)


def _fold_in(key: Any, i: int) -> Any:
    import jax

    return jax.random.fold_in(key, i)
