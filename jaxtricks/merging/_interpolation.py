"""The line between two models: its barrier, and how alike their weights are."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, ScalarLike

from .. import _safe as safe
from .._check import at_least, between
from .._mask import at_least_f32
from .._tree import check_alike, is_float, map_floats
from ._matrices import gathered


class Barrier(NamedTuple):
    """The loss along the straight line between two models."""

    barrier: Array  # f32[], the largest excess over the chord
    ts: Array  # f32[points], 0 is the first model
    losses: Array  # f32[points]


def interpolation_barrier(
    loss_fn: Callable[[PyTree], Any],
    tree: PyTree,
    other: PyTree,
    *,
    points: int = 11,
    repair: Callable[[PyTree], PyTree] | None = None,
) -> Barrier:
    """How far the loss rises on the line between two models; near 0: one basin.

    barrier = max_t L((1-t) tree + t other) - ((1-t) L(tree) + t L(other))

    Args:
      loss_fn: parameters -> a scalar, lower is better.
      tree: the model at t = 0.
      other: the model at t = 1; as a rule already permuted to match.
      points: equally spaced in [0, 1], ends included, >= 2 (static).
      repair: what is done to a mixed model before its loss, as re-estimating the
        statistics of its norms; the ends stay as they are.
    Returns:
      Barrier: `barrier` >= 0, 0 where the loss is nowhere above the chord.
    Gradient: of the losses, and of the barrier at its largest point.
    Cost: one loss a point, one after the other.
    Raises: ValueError for trees that differ (with the paths), points < 2.
    Source: Ainsworth et al., "Git Re-Basin: Merging Models modulo Permutation
      Symmetries", 2022, arXiv:2209.04836, def. 2.2; Ito et al., "Analysis of Linear
      Mode Connectivity via Permutation-Based Weight Matching", 2024, arXiv:2402.04051,
      def. 2.1. Differs: the chord, as the second has it (the first subtracts the mean
      of the two losses).
    Example:
      >>> found = interpolation_barrier(lambda w: jnp.cos(w), 0.0, jnp.pi)
      >>> found.barrier, found.losses.shape
      (Array(0.2090, dtype=float32), (11,))
    """
    at_least("points", points, 2)
    check_alike("other", other, tree)
    ts = jnp.linspace(0.0, 1.0, points)

    def loss(tree):
        return at_least_f32(loss_fn(tree))

    def between_them(t):
        mixed = map_floats(lambda a, b: (1 - t) * a + t * b, tree, other)
        return loss(mixed if repair is None else repair(mixed))

    middle = jax.lax.map(between_them, ts[1:-1])
    losses = jnp.concatenate([loss(tree)[None], middle, loss(other)[None]])
    chord = (1 - ts) * losses[0] + ts * losses[-1]
    return Barrier(jnp.maximum(jnp.max(losses - chord), 0), ts, losses)


def singular_vector_alignment(
    tree: PyTree,
    other: PyTree,
    *,
    threshold: ScalarLike = 0.0,
    weighted: bool = False,
) -> PyTree:
    """How far the dominant directions of two models' weights agree, matrix by matrix.

    R = sum_ij (u_i . u'_j)(v_i . v'_j) / sqrt(k k'), over the k and k' singular vectors
    with s >= threshold s_max; weighted: each term by s_i s'_j, over |s| |s'|

    Args:
      tree: pytree of weights; a kernel [..., in, out] is a matrix [-1, out], the rest
        is left out.
      other: the same of the other model; as a rule permuted to match. Permutations
        turn singular vectors and leave singular values.
      threshold: the paper's gamma, in [0, 1]: which directions count. May be traced.
      weighted: count pairs by their singular values (static).
    Returns:
      A pytree like `tree`: f32[] in [-1, 1], 1 for equal models, NaN for what is no
      matrix, 0 for a matrix of zeros.
    Gradient: not meant for it: not smooth where singular values meet.
    Cost: two singular value decompositions a matrix, gathered on every device.
    Raises: ValueError for trees that differ (with the paths), a threshold out of range.
    Source: Ito et al., "Analysis of Linear Mode Connectivity via Permutation-Based
      Weight Matching", 2024, arXiv:2402.04051, sec. 4. Differs: matrix by matrix, and
      divided by sqrt(k k') so that it lies in [-1, 1].
    Example:
      >>> w = jnp.diag(jnp.array([3.0, 1.0]))
      >>> singular_vector_alignment(w, w[::-1])
      Array(0., dtype=float32)
    """
    between("threshold", threshold, 0, 1)
    check_alike("other", other, tree)

    def leaf(a, b):
        if jnp.ndim(a) < 2 or not is_float(a):
            return jnp.float32(jnp.nan)
        a, b = (gathered(jnp, at_least_f32(x)) for x in (a, b))
        return _alignment(a, b, threshold, weighted)

    return jax.tree.map(leaf, tree, other)


def _alignment(a, b, threshold, weighted: bool) -> Float[Array, ""]:
    cut = []
    for x in (a, b):
        u, s, v = jnp.linalg.svd(x.reshape(-1, x.shape[-1]), full_matrices=False)
        # A direction that is only rounding is none.
        least = jnp.maximum(threshold, s.shape[0] * jnp.finfo(s.dtype).eps)
        top = jnp.max(s, initial=0.0)
        live = (s >= least * top) & (s > 0)
        kept = jnp.where(live, s if weighted else jnp.ones_like(s), 0)
        cut.append((u, kept, v))
    (u, s, v), (p, r, q) = cut
    total = jnp.einsum("i,ij,ij,j->", s, u.T @ p, v @ q.T, r)
    # safe: two empty or zero matrices have no directions.
    return total / safe.nonzero(safe.norm(s) * safe.norm(r))
