"""Model breadcrumbs: drop the small changes and the outliers."""

from collections.abc import Sequence
from typing import Any, Literal

from jaxtyping import Float

from .._check import one_of
from ._consensus import Consensus, Divisor, Sign, combine
from ._namespace import Coefficients, Number, Tree, coefficients, deltas, number
from ._sparsify import inliers, keep
from ._trees import from_base


def breadcrumbs(
    base: Tree,
    trees: Sequence[Tree],
    *,
    density: Number | Float[Any, " n"] | Sequence,
    gamma: Number | Float[Any, " n"] | Sequence = 0.01,
    weights: Coefficients = None,
    rescale: Literal["l1"] | None = None,
    consensus: Consensus = "linear",
    sign: Sign = "total",
    normalize: bool = False,
    divisor: Divisor = "weights",
    scale: Number = 1.0,
    where: Tree | None = None,
) -> Tree:
    """Many fine-tunes of one base, without their noise and without their outliers.

    t_i = tree_i - base, where between the largest gamma and the density below them
    merged = base + scale sum_i w_i t_i

    Args:
      base: the pytree that all were fine-tuned from; it gives the result its dtypes and
        the leaves that are not merged: integers, keys, those `where` rules out.
      trees: n pytrees of the structure of `base`.
      density: in [0, 1], one or float[n]: the share of changes kept in each leaf.
      gamma: in [0, 1], one or float[n]: the share of largest ones dropped; fewer where
        both do not fit; default mergekit's.
      weights: float[n]; None is all 1. May be traced.
      rescale: "l1" gives what is kept the sum of magnitudes of all; None does not.
      consensus: "linear" sums, "ties" elects a sign first.
      sign, normalize, divisor: as in `ties`; to "linear" all agree.
      scale: the paper's alpha. May be traced.
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like `base`, computed in at least f32; density=1 is task arithmetic.
    Gradient: smooth in trees, weights and scale while the same entries are kept; those
      are constants, so density and gamma get 0.
    Cost: 62 passes of counting; a copy of one leaf of all trees at a time.
    Raises: ValueError for no trees, for trees that differ (with the paths), for
      coefficients that are not one a tree or out of range.
    Source: Davari et al., "Model Breadcrumbs: Scaling Multi-Task Model Merging with
      Sparse Masks", 2023, arXiv:2312.06795. Differs: shares of entries in place
      of the paper's percentiles beta = 1 - density - gamma and 1 - gamma.
    Example:
      >>> import jax.numpy as jnp
      >>> tree = jnp.array([9.0, 1.0, -2.0, 3.0])
      >>> breadcrumbs(jnp.zeros(4), [tree], density=0.5, gamma=0.25)
      Array([ 0.,  0., -2.,  3.], dtype=float32)
    """

    def leaf(x, stack):
        return breadcrumbs_leaf(x, stack, density=density, gamma=gamma, scale=scale,
            weights=weights, rescale=rescale, consensus=consensus, sign=sign,
            normalize=normalize, divisor=divisor)  # fmt: skip

    return from_base(leaf, base, trees, where)


def breadcrumbs_leaf(
    base: Float[Any, "*shape"],
    stack: Float[Any, " n *shape"],
    *,
    density: Number | Float[Any, " n"] | Sequence,
    gamma: Number | Float[Any, " n"] | Sequence = 0.01,
    weights: Coefficients = None,
    rescale: Literal["l1"] | None = None,
    consensus: Consensus = "linear",
    sign: Sign = "total",
    normalize: bool = False,
    divisor: Divisor = "weights",
    scale: Number = 1.0,
) -> Float[Any, "*shape"]:
    """One parameter of `breadcrumbs`.

    t_i = stack_i - base, where between the largest gamma and the density below them
    merged = base + scale sum_i w_i t_i

    Args:
      base: float[*shape], the parameter that all were fine-tuned from.
      stack: float[n, *shape], the parameter in n models.
      density: in [0, 1], one or float[n]: the share of changes kept.
      gamma: in [0, 1], one or float[n]: the share of largest ones dropped.
      weights: float[n]; None is all 1. May be traced.
      rescale: "l1" gives what is kept the sum of magnitudes of all; None does not.
      consensus: "linear" sums, "ties" elects a sign first.
      sign, normalize, divisor: as in `ties`; to "linear" all agree.
      scale: of the merged change. May be traced.
    Returns:
      f32[*shape], numpy's unless an argument is jax's.
    Gradient: as `breadcrumbs`.
    Cost: as `breadcrumbs`; two partitions in numpy.
    Raises: ValueError for coefficients that are not one a model or out of range.
    Source: as `breadcrumbs`.
    Example:
      >>> import numpy as np
      >>> stack = np.array([[9.0, 1.0, -2.0, 3.0]])
      >>> breadcrumbs_leaf(np.zeros(4), stack, density=0.5, gamma=0.25)
      array([ 0.,  0., -2.,  3.])
    """
    one_of("rescale", rescale or "l1", ("l1",))
    xp, base, changes = deltas(base, stack, weights, density, gamma, scale)
    kept = keep(xp, changes, inliers(xp, changes, density, gamma), rescale)
    w = coefficients(xp, "weights", weights, changes)
    merged = combine(xp, kept, w, consensus=consensus, sign=sign, normalize=normalize,
        divisor=divisor)  # fmt: skip
    return base + number(xp, scale, base) * merged
