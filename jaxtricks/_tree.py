"""Arithmetic on pytrees of parameters.

Float leaves are computed in at least f32 and keep their own dtype; other leaves
(integers, keys) pass through untouched. Trees that do not match raise ValueError naming
the offending paths.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree, ScalarLike

from . import _safe as safe
from ._mask import at_least_f32


def is_float(x: Any) -> bool:
    """Whether a leaf takes part in arithmetic."""
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def map_floats(f: Callable, tree: PyTree, *rest: PyTree) -> PyTree:
    """f on float leaves in at least f32, cast back to the first tree's dtype.

    A leaf for which another tree holds None (no gradient, say) stays as it is.
    """

    def leaf(x, *others):
        if not is_float(x) or any(other is None for other in others):
            return x
        return f(at_least_f32(x), *map(at_least_f32, others)).astype(jnp.result_type(x))

    return jax.tree.map(leaf, tree, *rest)


def promote(tree: PyTree) -> PyTree:
    """Float leaves in at least f32, to compute on."""
    return jax.tree.map(lambda x: at_least_f32(x) if is_float(x) else x, tree)


def floats(tree: PyTree) -> tuple[list, Callable[[list], PyTree]]:
    """The float leaves, and what makes a tree of others in their place."""
    leaves, structure = jax.tree.flatten(tree)
    places = [i for i, leaf in enumerate(leaves) if is_float(leaf)]

    def join(parts: list) -> PyTree:
        filled = dict(zip(places, parts, strict=True))
        whole = [filled.get(i, leaf) for i, leaf in enumerate(leaves)]
        return jax.tree.unflatten(structure, whole)

    return [leaves[i] for i in places], join


def dot(a: PyTree, b: PyTree) -> Float[Array, ""]:
    """The inner product over all float leaves, in at least f32."""
    parts = [
        jnp.sum(at_least_f32(x) * at_least_f32(y))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        if is_float(x)
    ]
    return jnp.sum(jnp.stack(parts)) if parts else jnp.float32(0)


def peak(tree: PyTree) -> Float[Array, ""]:
    """The largest magnitude over all float leaves; 0 if there is none."""
    peaks = [
        jnp.max(jnp.abs(at_least_f32(x)), initial=0.0)
        for x in jax.tree.leaves(tree)
        if is_float(x)
    ]
    return jnp.max(jnp.stack(peaks)) if peaks else jnp.float32(0)


def norm(tree: PyTree) -> Float[Array, ""]:
    """The 2-norm over all float leaves; 0 with derivative 0 at 0."""
    norms = [safe.norm(at_least_f32(x)) for x in jax.tree.leaves(tree) if is_float(x)]
    return safe.norm(jnp.stack(norms)) if norms else jnp.float32(0)


def add_scaled(a: PyTree, scale: ScalarLike, b: PyTree) -> PyTree:
    """a + scale * b."""
    return map_floats(lambda x, y: x + scale * y, a, b)


def as_like(tree: PyTree, reference: PyTree) -> PyTree:
    """Float leaves in the dtypes of the reference's."""
    return jax.tree.map(
        lambda x, r: x.astype(jnp.result_type(r)) if is_float(x) else x, tree, reference
    )


def paths(tree: PyTree) -> dict[str, Any]:
    """Path -> leaf, MaskedNodes counting as leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_masked)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def is_masked(x: Any) -> bool:
    """Whether a leaf is the hole that optax.masked and optax.partition leave."""
    return isinstance(x, optax.MaskedNode)


def check_alike(name: str, tree: PyTree, reference: PyTree) -> None:
    """ValueError, with the paths, unless the trees have the same paths and shapes."""
    ours, theirs = paths(tree), paths(reference)
    wrong = [f"{p} is missing" for p in theirs if p not in ours]
    wrong += [f"{p} is not wanted" for p in ours if p not in theirs]
    for path in theirs:
        if path in ours and _shape(ours[path]) != _shape(theirs[path]):
            came, wanted = _shape(ours[path]), _shape(theirs[path])
            wrong.append(f"{path} has shape {came}, wanted {wanted}")
    if wrong:
        raise ValueError(f"{name}: " + "; ".join(wrong))


def check_floats(name: str, tree: PyTree) -> None:
    """ValueError, with the path, unless all leaves are floats."""
    for path, leaf in paths(tree).items():
        if not is_float(leaf):
            at = f" at {path}" if path else ""
            raise ValueError(f"{name}: wanted floats, came {jnp.result_type(leaf)}{at}")


def check_scalar(name: str, value: Any) -> None:
    """ValueError unless a result is one float."""
    one = jax.tree.structure(value) == jax.tree.structure(0) and jnp.shape(value) == ()
    if not (one and jnp.issubdtype(jnp.result_type(value), jnp.floating)):
        came = jax.tree.map(described, value)
        raise ValueError(f"{name}: wanted float[], came {came}")


def described(leaf: Any) -> str:
    """As in f32[2, 3]."""
    return f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"


def arranged(name: str, tree: PyTree, reference: PyTree) -> PyTree:
    """The tree with the containers of the reference, leaves found by their paths.

    An OrderedDict has its leaves in another order than a dict of the same keys.
    ValueError as `check_alike`.
    """
    check_alike(name, tree, reference)
    ours = paths(tree)
    leaves = [ours[path] for path in paths(reference)]
    structure = jax.tree.structure(reference, is_leaf=is_masked)
    return jax.tree.unflatten(structure, leaves)


def _shape(leaf: Any) -> Any:
    return "MaskedNode()" if is_masked(leaf) else jnp.shape(leaf)


def complete(fn: Callable, params: PyTree) -> Callable:
    """`grad_fn` for a transformation that sees only a part of the parameters.

    gradients of part: grad_fn(part with the holes filled from params), holes cut again

    optax.masked and optax.partition hand their inner transformation a tree with
    MaskedNodes, which a model cannot take: pass `grad_fn=complete(grad_fn, params)`.

    Args:
      fn: a function of all parameters, and of more if it likes: their gradients, or
        (gradients, aux), or a loss.
      params: all parameters, at which the missing ones stay.
    Returns:
      The same function of a tree with or without MaskedNodes; gradients come with its
      structure, anything else as it is.
    Gradient: as fn; flows into `params` too.
    Cost: none beyond fn.
    Source: definition.
    Example:
      >>> params = {"w": jnp.ones(2), "b": jnp.zeros(1)}
      >>> double = lambda p: jax.tree.map(lambda x: 2 * x, p)
      >>> complete(double, params)({"w": jnp.ones(2), "b": optax.MaskedNode()})
      {'b': MaskedNode(), 'w': Array([2., 2.], dtype=float32)}
    """
    whole = jax.tree.structure(params)

    def fill(part, filling):
        return filling if is_masked(part) else part

    def keep(part, grads):
        return part if is_masked(part) else grads

    def cut(part, result):
        if jax.tree.structure(result) == whole:
            return jax.tree.map(keep, part, result, is_leaf=is_masked)
        if isinstance(result, tuple) and len(result) == 2:
            return cut(part, result[0]), result[1]
        return result

    def of_part(part, *args, **kwargs):
        filled = jax.tree.map(fill, part, params, is_leaf=is_masked)
        return cut(part, fn(filled, *args, **kwargs))

    return of_part
