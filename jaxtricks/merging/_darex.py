"""DAREx-q: dropping most of a fine-tune, rescaled by less than what was dropped."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key, PyTree, ScalarLike

from .._check import between
from .._mask import at_least_f32
from .._tree import check_alike
from ._beside import spread
from ._trees import merge


def darex_q(
    base: PyTree,
    tree: PyTree,
    *,
    density: ScalarLike,
    q: ScalarLike | PyTree | None = None,
    mask: PyTree | None = None,
    key: Key[Array, ""] | None = None,
    where: PyTree[bool] | None = None,
) -> PyTree:
    """Keeps a random few of the changes of a fine-tune; for 1 % of them and less.

    pruned = base + mask (tree - base) / q, mask = 1 with probability density

    q = density (DARE) is right on average, but the larger the variance, the fewer are
    kept: take q from `darex_rescale`, or the best of a grid on validation data; it may
    be traced, so a grid is one vmap.

    Args:
      base: the pytree before fine-tuning.
      tree: the pytree after it; it gives the result its dtypes and the leaves that are
        not pruned.
      density: in [0, 1], the share that is kept, the paper's 1 - p. May be traced.
      q: in (0, 1], or a prefix tree of them; None is density, DARE. May be traced.
      mask: a tree like base of bools, True keeps, instead of a key.
      key: a typed key, folded with the number of each leaf.
      where: prefix tree of bools, True prunes; the paper leaves biases, norms,
        embeddings and heads as they are in `tree` (static).
    Returns:
      A tree like `tree`, computed in at least f32. density=1 gives it, 0 `base`.
    Gradient: linear in base and tree; smooth in q; none in density but through q.
    Cost: one pass.
    Raises: ValueError for trees that differ (with the paths), for neither or both of
      mask and key, for a density out of range.
    Source: Deng et al., "DARE the Extreme: Revisiting Delta-Parameter Pruning For
      Fine-Tuned Models", 2024, arXiv:2410.09344, section 4.1. Differs: none.
    Example:
      >>> base, tree = jnp.zeros(3), jnp.array([1.0, 2.0, 3.0])
      >>> keep = jnp.array([True, False, True])
      >>> darex_q(base, tree, density=0.5, q=0.8, mask=keep)
      Array([1.25, 0.  , 3.75], dtype=float32)
    """
    between("density", density, 0, 1)
    if (mask is None) == (key is None):
        came = "neither" if mask is None else "both"
        raise ValueError(f"mask: wanted a mask or a key, came {came}")
    check_alike("tree", tree, base)
    scales = spread("q", density if q is None else q, tree, where)
    if mask is None:
        places = jax.tree.unflatten(
            jax.tree.structure(tree), range(len(jax.tree.leaves(tree)))
        )
        drawn = spread("key", places, tree, where)
    else:
        check_alike("mask", mask, tree)
        drawn = spread("mask", mask, tree, where)

    def merge_leaves(pairs):
        for (leaf, stack), scale, at in zip(pairs, scales, drawn, strict=True):
            start, kept = stack[0], at
            if key is not None:
                own = jax.random.fold_in(key, at)
                kept = jax.random.bernoulli(own, jnp.float32(density), leaf.shape)
            # q = 0 is density = 0, of which nothing is kept.
            scale = at_least_f32(scale).astype(leaf.dtype)
            change = (leaf - start) / jnp.where(scale == 0, 1, scale)
            yield start + jnp.where(kept, change, 0)

    return merge(merge_leaves, tree, [base], where)


def darex_rescale(
    contributions: Float[ArrayLike, "outputs inputs"],
    *,
    density: float | int,
    eta: ScalarLike = 0.45,
    gamma: float | int = 0.95,
    enough: float | int = 0.8,
) -> Float[Array, ""]:
    """The q of `darex_q` for a layer without labels, from its changes and inputs.

    q = the mean over rows of argmin_q |eta (1 - (1 - p) / q) sum_j c_j
      + eta^2 phi(p) sum_j c_j^2 / (4 q^2) + log(2 / (1 - gamma))|, p = 1 - density,
    phi(p) = (1 - 2p) / log((1 - p) / p), q in (0.001, 0.002, ..., 0.998), from 1 - p on

    Args:
      contributions: float[outputs, inputs], c: the change of a kernel [outputs, inputs]
        times the mean of each input; the change of the bias is one more column.
      density: in [0, 1], the share that is kept (static).
      eta: > 0; the code's 0.45. May be traced.
      gamma: in [0, 1), the probability of the bound; the paper's 0.95.
      enough: in (0, 1]: the scan over q ends where this share of the rows once stopped
        improving; the code's 0.8, against outlying features.
    Returns:
      f32[], in [density, 1).
    Gradient: none, a choice from a grid.
    Cost: a thousand numbers a row.
    Raises: ValueError for a density, gamma or enough out of range.
    Source: Deng et al., "DARE the Extreme: Revisiting Delta-Parameter Pruning For
      Fine-Tuned Models", 2024, arXiv:2410.09344, section 4.1 and its code. Differs: in
      f32 where the code has f16, which decides ties: the last of equal q wins.
    Example:
      >>> c = jnp.array([[-9.0, -3.0], [-10.0, 1.0]])
      >>> darex_rescale(c, density=0.01)
      Array(0.7705, dtype=float32)
    """
    between("density", density, 0, 1)
    between("gamma", gamma, 0, 1)
    between("enough", enough, 0, 1)
    if gamma == 1:
        raise ValueError("gamma: wanted below 1, came 1")
    c = jax.lax.stop_gradient(at_least_f32(contributions))
    p = 1 - density
    first = max(1, int((1 - p) * 1000))
    if first >= 999 or not len(c):
        return jnp.asarray(density, c.dtype)
    number = jnp.arange(1, 999)
    scanned = (number >= first)[None]
    q = number.astype(c.dtype) * 0.001
    linear = jnp.sum(c, axis=1, keepdims=True) * (1 - (1 - p) / q)[None]
    square = jnp.sum(c * c, axis=1, keepdims=True) * (_phi(p) / (4 * q**2))[None]
    miss = jnp.abs(eta * linear + eta**2 * square + math.log(2 / (1 - gamma)))
    miss = jnp.where(scanned, miss, jnp.inf)
    start = jnp.full_like(miss[:, :1], 10000.0)  # the code's: larger ones are no choice
    best = jax.lax.cummin(jnp.concatenate([start, miss], axis=1), axis=1)[:, :-1]
    stopped = jnp.cumsum(scanned & (miss >= best), axis=1) > 0
    share = jnp.mean(stopped, axis=0, dtype=c.dtype)
    last = jnp.where(jnp.any(share >= enough), jnp.argmax(share >= enough), len(q))
    at = jnp.arange(len(q))[None]
    chosen = scanned & (miss <= best) & (at <= last)
    place = jnp.max(jnp.where(chosen, at, -1), axis=1)
    found = jnp.where(place >= 0, q[place], jnp.asarray(1 - p, c.dtype))
    return jnp.mean(found)


def _phi(p: float) -> float:
    """(1 - 2p) / log((1 - p) / p), with its limits."""
    if p in (0, 1):
        return 0.0
    x = 1 - 2 * p
    return x / (2 * math.atanh(x)) if abs(x) > 1e-6 else 0.5
