"""Means of several models on the sphere: one tangent step, or the Karcher mean."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from .._check import above, at_least
from ._namespace import (
    Coefficients,
    Number,
    Tree,
    along,
    at_least_f32,
    coefficients,
    dot,
    namespace,
    nonzero,
    norm,
    number,
    sqrt,
)
from ._trees import from_base, stacked


def multislerp(
    trees: Sequence[Tree],
    *,
    base: Tree | None = None,
    weights: Coefficients = None,
    normalize: bool = True,
    eps: Number = 1e-8,
    where: Tree | None = None,
) -> Tree:
    """The weighted mean of models on a sphere, by one step in the tangent space.

    u_i = x_i / |x_i|; m = sum w_i u_i, normed; v = sum w_i (u_i - (u_i.m) m)
    merged = (sum w_i |x_i|) (cos|v| m + sin|v| v / |v|)

    Args:
      trees: n pytrees of one structure. The first gives the result its dtypes and the
        leaves that are not merged: integers, keys, those `where` rules out, unless base
        does.
      base: the middle of the sphere; None is 0.
      weights: float[n], of a sum that is not 0; None is all 1. May be traced.
      normalize: divide the weights by their sum (static).
      eps: > 0, what is added to norms before a division.
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like the first, or the base, computed in at least f32. One model gives
      itself; where directions cancel, the weighted sum.
    Gradient: smooth in trees and weights, but where directions cancel.
    Cost: a few passes; some copies of one leaf of all trees at a time.
    Raises: ValueError for no trees, for trees that differ (with the paths), for weights
      that are not one a tree, for eps <= 0.
    Source: definition (mergekit's multislerp). Differs: where more than two cancel,
      mergekit raises.
    Example:
      >>> import jax.numpy as jnp
      >>> multislerp([jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0])])
      Array([1.0607, 1.0607], dtype=float32)
    """

    def around(b, x):
        return multislerp_leaf(x, base=b, weights=weights, normalize=normalize, eps=eps)

    if base is None:
        return stacked(lambda x: around(None, x), trees, where)

    return from_base(around, base, trees, where)


def multislerp_leaf(
    stack: Float[Any, " n *shape"],
    *,
    base: Float[Any, "*shape"] | None = None,
    weights: Coefficients = None,
    normalize: bool = True,
    eps: Number = 1e-8,
) -> Float[Any, "*shape"]:
    """One parameter of `multislerp`.

    u_i = x_i / |x_i|; m = sum w_i u_i, normed; v = sum w_i (u_i - (u_i.m) m)
    merged = (sum w_i |x_i|) (cos|v| m + sin|v| v / |v|)

    Args:
      stack: float[n, *shape], the parameter in n models.
      base: float[*shape], the middle of the sphere; None is 0.
      weights: float[n], of a sum that is not 0; None is all 1. May be traced.
      normalize: divide the weights by their sum (static).
      eps: > 0, what is added to norms before a division.
    Returns:
      f32[*shape], numpy's unless an argument is jax's.
    Gradient: as `multislerp`.
    Cost: as `multislerp`.
    Raises: ValueError for weights that are not one a model, for eps <= 0.
    Source: as `multislerp`.
    Example:
      >>> import numpy as np
      >>> multislerp_leaf(np.array([[1.0, 0.0], [0.0, 2.0]]))
      array([1.0607, 1.0607])
    """
    above("eps", eps, 0)
    xp = namespace(stack, base, weights, eps)
    stack = at_least_f32(xp, stack)
    w = coefficients(xp, "weights", weights, stack)
    if stack.shape[0] == 1:
        return stack[0]
    eps = number(xp, eps, stack)
    origin = xp.zeros_like(stack[0]) if base is None else at_least_f32(xp, base)
    x = stack - origin[None]
    w = along(w / xp.sum(w) if normalize else w, x)
    axes = tuple(range(1, x.ndim))
    sizes = norm(xp, x, axes)
    units = x / (sizes + eps)
    mean = xp.sum(w * units, axis=0, keepdims=True)
    size = norm(xp, mean)
    cancel = size < eps
    mean = mean / xp.where(cancel, 1, size)
    tangent = xp.sum(
        w * (units - dot(xp, units, mean, axes) * mean), axis=0, keepdims=True
    )
    angle = norm(xp, tangent) + eps
    turned = mean * xp.cos(angle) + tangent * (xp.sin(angle) / angle)
    turned = turned * xp.sum(w * sizes)
    line = xp.sum(w * x, axis=0, keepdims=True)
    return origin + xp.where(cancel, line, turned)[0]


def karcher(
    trees: Sequence[Tree],
    *,
    weights: Coefficients = None,
    max_iter: int = 10,
    tol: Number = 1e-5,
    where: Tree | None = None,
) -> Tree:
    """The weighted Karcher mean: the point of the sphere nearest to all models.

    u_i = x_i / |x_i|; minimises sum_i w_i angle(m, u_i)^2 by gradient steps
    merged = (sum w_i |x_i|) m, sum w_i = 1

    Args:
      trees: n pytrees of one structure. The first gives the result its dtypes and the
        leaves that are not merged: integers, keys, those `where` rules out.
      weights: float[n], of a sum that is not 0; None is all 1. May be traced.
      max_iter: steps (static); default mergekit's.
      tol: shorter steps end it, smaller norms have no direction; default mergekit's.
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like the first, computed in at least f32. One model gives itself.
    Gradient: through the steps; smooth but where models are opposite.
    Cost: n^2 / 2 inner products, whatever the steps are, which run on n numbers.
    Raises: ValueError for no trees, for trees that differ (with the paths), for weights
      that are not one a tree, for max_iter or tol < 0.
    Source: Wang et al., "Functionality-Oriented LLM Merging on the Fisher--Rao
      Manifold", 2026, arXiv:2603.04972. Differs: the spherical proxy, leaf by leaf, as
      mergekit's karcher; takes weights.
    Example:
      >>> import jax.numpy as jnp
      >>> karcher([jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0])])
      Array([1.0607, 1.0607], dtype=float32)
    """

    def leaf(x):
        return karcher_leaf(x, weights=weights, max_iter=max_iter, tol=tol)

    return stacked(leaf, trees, where)


def karcher_leaf(
    stack: Float[Any, " n *shape"],
    *,
    weights: Coefficients = None,
    max_iter: int = 10,
    tol: Number = 1e-5,
) -> Float[Any, "*shape"]:
    """One parameter of `karcher`.

    u_i = x_i / |x_i|; minimises sum_i w_i angle(m, u_i)^2 by gradient steps
    merged = (sum w_i |x_i|) m, sum w_i = 1

    Args:
      stack: float[n, *shape], the parameter in n models.
      weights: float[n], of a sum that is not 0; None is all 1. May be traced.
      max_iter: steps (static).
      tol: shorter steps end it, smaller norms have no direction.
    Returns:
      f32[*shape], numpy's unless an argument is jax's; 0 where all models are.
    Gradient: as `karcher`.
    Cost: as `karcher`.
    Raises: ValueError for weights that are not one a model, for max_iter or tol < 0.
    Source: as `karcher`.
    Example:
      >>> import numpy as np
      >>> karcher_leaf(np.array([[1.0, 0.0], [0.0, 2.0]]))
      array([1.0607, 1.0607])
    """
    at_least("max_iter", max_iter, 0)
    at_least("tol", tol, 0)
    xp = namespace(stack, weights, tol)
    stack = at_least_f32(xp, stack)
    w = coefficients(xp, "weights", weights, stack)
    n = stack.shape[0]
    if n == 1:
        return stack[0]
    tol = number(xp, tol, stack)
    sizes = xp.reshape(norm(xp, stack, tuple(range(1, stack.ndim))), n)
    live = sizes > tol
    units = stack / along(xp.where(live, sizes, 1), stack)
    # Every point on the way is a sum of the units: its coefficients are all there is.
    gram = [[xp.sum(units[i] * units[j]) for j in range(i + 1)] for i in range(n)]
    gram = xp.stack(
        [xp.stack([gram[max(i, j)][min(i, j)] for j in range(n)]) for i in range(n)]
    )

    def products(c):  # not a matmul, which may run in bf16
        return xp.sum(gram * c[None], axis=1)

    def length(c):
        return sqrt(xp, xp.maximum(xp.sum(c * products(c)), 0))

    share = xp.where(live, w, 0)
    share = share / nonzero(xp, xp.sum(share))
    size = length(share)
    opposite = 4 * float(xp.finfo(stack.dtype).eps) - 1  # from there all ways are equal
    one = xp.arange(n) == xp.argmax(live)
    mean = xp.where(size < tol, one.astype(w.dtype), share / nonzero(xp, size))

    def step(mean, done):
        cos = products(mean)
        between = (cos < 1) & (cos > opposite)
        angle = xp.arccos(xp.where(between, cos, 0))
        between = between & (angle >= tol)
        pull = share * xp.where(between, angle / xp.sin(xp.where(between, angle, 1)), 0)
        way = pull - xp.sum(pull * cos) * mean
        size = length(way)
        done = done | (size < tol)
        moved = xp.cos(size) * mean + xp.sin(size) * way / nonzero(xp, size)
        norm_ = length(moved)
        moved = moved / xp.where(norm_ > tol, norm_, 1)
        return xp.where(done, mean, moved), done

    mean, _ = _repeat(xp, step, max_iter, mean, size != size)
    scale = xp.sum(w * sizes) / xp.sum(w)
    return scale * xp.sum(along(xp.where(live, mean, 0), units) * units, axis=0)


def _repeat(xp, step, times: int, *state) -> tuple:
    """step(*state) -> state, so many times; compiled once, derivatives and all."""
    if xp is np:
        for _ in range(times):
            state = step(*state)
        return state
    from jax import lax

    return lax.scan(lambda state, _: (step(*state), None), state, length=times)[0]
