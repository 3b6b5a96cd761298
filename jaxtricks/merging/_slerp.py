"""Interpolation of two models on the sphere: by a plane for each leaf, or each row."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float

from ._namespace import (
    Coefficients,
    Number,
    Tree,
    at_least_f32,
    coefficients,
    dot,
    how_many_models,
    namespace,
    norm,
    number,
)
from ._trees import from_base, stacked


def slerp(
    trees: Sequence[Tree],
    *,
    t: Number = 0.5,
    threshold: Number = 0.9995,
    where: Tree | None = None,
) -> Tree:
    """Interpolates two models along an arc, so that leaves keep their norms.

    merged = (sin((1 - t) a) x + sin(t a) y) / sin(a), a: the angle between x and y

    Args:
      trees: two pytrees of one structure, x and y. The first gives the result its
        dtypes and the leaves that are not merged: integers, keys, those `where` rules
        out.
      t: where on the arc; 0 is x, 1 is y. May be traced.
      threshold: a larger |cos a| is interpolated linearly; default mergekit's.
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like the first, computed in at least f32; each leaf has its own angle.
    Gradient: smooth in trees and t, but where leaves become parallel.
    Cost: two passes; a copy of one leaf of both trees at a time.
    Raises: ValueError for other than two trees, for trees that differ (with the paths).
    Source: Shoemake, "Animating rotation with quaternion curves", 1985. Differs: takes
      vectors of any length and norm, as mergekit does.
    Example:
      >>> import jax.numpy as jnp
      >>> slerp([jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])])
      Array([0.7071, 0.7071], dtype=float32)
    """
    _two("trees", len(trees))
    leaf = lambda x: slerp_leaf(x, t=t, threshold=threshold)  # noqa: E731
    return stacked(leaf, trees, where)


def slerp_leaf(
    stack: Float[Any, " 2 *shape"], *, t: Number = 0.5, threshold: Number = 0.9995
) -> Float[Any, "*shape"]:
    """One parameter of `slerp`.

    merged = (sin((1 - t) a) x + sin(t a) y) / sin(a), a: the angle between x and y

    Args:
      stack: float[2, *shape], the parameter in both models.
      t: where on the arc; 0 is the first, 1 the second. May be traced.
      threshold: a larger |cos a| is interpolated linearly.
    Returns:
      f32[*shape], numpy's unless an argument is jax's.
    Gradient: as `slerp`.
    Cost: as `slerp`.
    Raises: ValueError for other than two models.
    Source: as `slerp`.
    Example:
      >>> import numpy as np
      >>> slerp_leaf(np.array([[1.0, 0.0], [0.0, 1.0]]), t=1 / 3)
      array([0.866, 0.5  ])
    """
    xp = namespace(stack, t, threshold)
    stack = at_least_f32(xp, stack)
    _two("stack", how_many_models(stack))
    x, y = stack[0], stack[1]
    cos = xp.sum(_unit(xp, x, 1e-8) * _unit(xp, y, 1e-8))
    cos = xp.clip(cos, -1, 1)
    linear = xp.abs(cos) > number(xp, threshold, cos)
    a, b = _on_arc(xp, cos, number(xp, t, cos), linear)
    return a * x + b * y


def nuslerp(
    trees: Sequence[Tree],
    *,
    base: Tree | None = None,
    weights: Coefficients = None,
    rows: bool | int = False,
    where: Tree | None = None,
) -> Tree:
    """`slerp` by weights, of changes where a base is given, for each leaf or each row.

    merged = base + slerp(x - base, y - base; t = w_2 / (w_1 + w_2))

    Args:
      trees: two pytrees of one structure, x and y. The first gives the result its
        dtypes and the leaves that are not merged: integers, keys, those `where` rules
        out, unless base does.
      base: a pytree to which the changes are measured; None is 0.
      weights: float[2]; None is all 1; a sum of 0 counts as equal ones. May be traced.
      rows: False has an angle for each leaf (mergekit's nuslerp_flatten), True for each
        row, the last axis; an int is the axis instead (mergekit's
        nuslerp_row_wise: 0) (static).
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like the first, or the base, computed in at least f32.
    Gradient: as `slerp`.
    Cost: as `slerp`.
    Raises: ValueError for other than two trees, for trees that differ (with the paths),
      for weights that are not two.
    Source: definition (mergekit's nuslerp). Differs: a scalar is a row by itself.
    Example:
      >>> import jax.numpy as jnp
      >>> nuslerp([jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])], weights=[2, 1])
      Array([0.866, 0.5  ], dtype=float32)
    """
    _two("trees", len(trees))
    if base is None:
        leaf = lambda x: nuslerp_leaf(x, weights=weights, rows=rows)  # noqa: E731
        return stacked(leaf, trees, where)

    def around(b, x):
        return nuslerp_leaf(x, base=b, weights=weights, rows=rows)

    return from_base(around, base, trees, where)


def nuslerp_leaf(
    stack: Float[Any, " 2 *shape"],
    *,
    base: Float[Any, "*shape"] | None = None,
    weights: Coefficients = None,
    rows: bool | int = False,
) -> Float[Any, "*shape"]:
    """One parameter of `nuslerp`.

    merged = base + slerp(x - base, y - base; t = w_2 / (w_1 + w_2))

    Args:
      stack: float[2, *shape], the parameter in both models.
      base: float[*shape]; None is 0.
      weights: float[2]; None is all 1. May be traced.
      rows: False has an angle for all, True for each row of the last axis; an int is
        the axis instead (static).
    Returns:
      f32[*shape], numpy's unless an argument is jax's.
    Gradient: as `slerp`.
    Cost: as `slerp`.
    Raises: ValueError for other than two models, for weights that are not two.
    Source: as `nuslerp`.
    Example:
      >>> import numpy as np
      >>> x, y = np.eye(2), np.eye(2)[::-1]
      >>> nuslerp_leaf(np.stack([x, y]), rows=True)
      array([[0.7071, 0.7071],
             [0.7071, 0.7071]])
    """
    xp = namespace(stack, base, weights)
    stack = at_least_f32(xp, stack)
    _two("stack", how_many_models(stack))
    w = coefficients(xp, "weights", weights, stack)
    total = xp.sum(w)
    none = xp.abs(total) < 1e-6
    t = xp.where(none, 0.5, w[1] / xp.where(none, 1, total))
    origin = 0 if base is None else at_least_f32(xp, base)
    x, y = stack[0] - origin, stack[1] - origin
    axis = -1 if rows is True else rows
    if rows is False or x.ndim == 0:
        axis = None
    cos = xp.clip(
        dot(xp, _unit(xp, x, 1e-7, axis), _unit(xp, y, 1e-7, axis), axis), -1, 1
    )
    a, b = _on_arc(xp, cos, t, False)
    return origin + (a * x + b * y)


def _unit(xp, x, floor, axis=None):
    """x over its norm, where that is above the floor."""
    size = norm(xp, x, axis)
    return x / xp.where(size > floor, size, 1)


def _on_arc(xp, cos, t, linear):
    """The coefficients of both ends at t of the arc; of the line where parallel too."""
    linear = linear | (1 - xp.square(cos) <= 1e-16)  # there is no other way
    angle = xp.arccos(xp.where(linear, 0, cos))
    sin = xp.sin(angle)
    first = xp.where(linear, 1 - t, xp.sin((1 - t) * angle) / sin)
    return first, xp.where(linear, t, xp.sin(t * angle) / sin)


def _two(name: str, n: int) -> None:
    if n != 2:
        raise ValueError(f"{name}: wanted two models, came {n}")
