"""SCE: select where models differ, weigh them by their energy, erase minorities."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from .._check import between
from ._namespace import Number, Tree, along, deltas, number
from ._sparsify import keep_largest
from ._trees import from_base


def sce(
    base: Tree,
    trees: Sequence[Tree],
    *,
    select: Number = 1.0,
    where: Tree | None = None,
) -> Tree:
    """Fine-tunes of one base, weighted leaf by leaf without any coefficient to tune.

    t_i = tree_i - base, kept where var_i(t_i) is largest; w_i ~ mean t_i^2
    merged = base + sum_agreeing w_i t_i / sum_agreeing w_i, agreeing: sign(t_i) = s

    Args:
      base: the pytree that all were fine-tuned from; it gives the result its dtypes and
        the leaves that are not merged: integers, keys, those `where` rules out.
      trees: n pytrees of the structure of `base`.
      select: in [0, 1], the share of entries kept among those where models differ (the
        paper's tau); 1 keeps all, the default of mergekit. May be traced.
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like `base`, computed in at least f32; select=0 gives `base`, and so does
      any but 1 for one model or equal ones, which differ nowhere.
    Gradient: smooth in trees while the kept entries and signs stay the same; select
      gets 0.
    Cost: 31 passes of counting; a copy of one leaf of all trees at a time.
    Raises: ValueError for no trees, for trees that differ (with the paths), for select
      out of range.
    Source: Wan et al., "FuseChat: Knowledge Fusion of Chat Models", 2024,
      arXiv:2408.07990. Differs: as mergekit, equal weights where the energies
      sum to less than 1e-6, and sums of agreeing weights are at least 1e-6.
    Example:
      >>> import jax.numpy as jnp
      >>> a, b = jnp.array([3.0, 1.0, 0.0]), jnp.array([1.0, -1.0, 0.0])
      >>> sce(jnp.zeros(3), [a, b])  # weights 10/12 and 2/12
      Array([2.6667, 1.    , 0.    ], dtype=float32)
    """

    def leaf(x, stack):
        return sce_leaf(x, stack, select=select)

    return from_base(leaf, base, trees, where)


def sce_leaf(
    base: Float[Any, "*shape"], stack: Float[Any, " n *shape"], *, select: Number = 1.0
) -> Float[Any, "*shape"]:
    """One parameter of `sce`.

    t_i = stack_i - base, kept where var_i(t_i) is largest; w_i ~ mean t_i^2
    merged = base + sum_agreeing w_i t_i / sum_agreeing w_i, agreeing: sign(t_i) = s

    Args:
      base: float[*shape], the parameter that all were fine-tuned from.
      stack: float[n, *shape], the parameter in n models.
      select: in [0, 1], the share of entries kept among those where models differ.
    Returns:
      f32[*shape], numpy's unless an argument is jax's.
    Gradient: as `sce`.
    Cost: as `sce`; a partition in numpy.
    Raises: ValueError for select out of range, for a base of another shape.
    Source: as `sce`.
    Example:
      >>> import numpy as np
      >>> sce_leaf(np.zeros(2), np.array([[3.0, 1.0], [1.0, -1.0]]))
      array([2.6667, 1.    ])
    """
    between("select", select, 0, 1)
    xp, base, changes = deltas(base, stack, select)
    if base.size == 0:
        return base
    # From the first one, so that equal changes have a variance of 0 and no rounding.
    spread = xp.var(changes - changes[:1], axis=0)[None]
    # As exact as the host allows; traced, one entry may go the other way.
    wide = np.float64(0) if xp is np else np.float32(0)
    select = number(xp, select, wide)
    differing = xp.sum(spread != 0).astype(wide.dtype)
    k = xp.floor(differing * select).astype(np.int32).reshape(1)
    (mask,) = keep_largest(xp, [spread], k)
    whole = select >= 1  # then equal changes count too
    changes = xp.where(mask | whole, changes, 0)
    axes = tuple(range(1, changes.ndim))
    energy = xp.mean(xp.square(changes), axis=axes)
    total = xp.sum(energy)
    tiny = total < 1e-6
    w = xp.where(tiny, 1 / energy.size, energy / xp.where(tiny, 1, total))
    positive = xp.sum(changes, axis=0, keepdims=True) >= 0
    agree = xp.where(positive, changes > 0, changes < 0)
    w = xp.where(agree, along(w, changes), 0)
    return base + xp.sum(w * changes, axis=0) / xp.maximum(xp.sum(w, axis=0), 1e-6)
