"""From a merge of stacked arrays to a merge of pytrees."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, Real, Shaped

from .._mask import at_least_f32
from .._tree import check_alike, is_float

Pair = tuple[Float[Array, "*shape"], Float[Array, " n *shape"]]


def merge(
    merge_leaves: Callable[[Iterator[Pair]], Iterable[Array]],
    reference: PyTree,
    trees: Sequence[PyTree],
    where: PyTree[bool] | None,
    name: str = "trees",
) -> PyTree:
    """The reference with its merged leaves replaced.

    merge_leaves gets pairs (leaf of the reference, that leaf of all trees stacked), in
    at least f32 and one at a time, and gives the merged leaves. A leaf that is no
    float, or that `where`, a prefix tree of bools, rules out, stays the reference's.
    """
    for i, other in enumerate(trees):
        check_alike(f"{name}[{i}]", other, reference)
    leaves, treedef = jax.tree.flatten(reference)
    wanted = [True] * len(leaves) if where is None else _spread(where, reference)
    live = [i for i, leaf in enumerate(leaves) if wanted[i] and is_float(leaf)]
    columns = list(zip(*map(jax.tree.leaves, trees), strict=True))

    def pair(i):
        stack = jnp.stack([at_least_f32(x) for x in columns[i]])
        return at_least_f32(leaves[i]), stack

    for i, leaf in zip(live, merge_leaves(map(pair, live)), strict=True):
        leaves[i] = leaf.astype(jnp.result_type(leaves[i]))
    return jax.tree.unflatten(treedef, leaves)


def as_coefficients(
    name: str, values: Sequence | Real[Any, "..."] | None, n: int
) -> Float[Array, " n"]:
    """One coefficient for each of n models, all 1 for None; or ValueError."""
    if values is None:
        return jnp.ones(n)
    if isinstance(values, list | tuple):
        values = jnp.stack([at_least_f32(v) for v in values]) if values else ()
    values = at_least_f32(jnp.asarray(values))
    if values.shape != (n,):
        raise ValueError(f"{name}: wanted shape {(n,)}, came {values.shape}")
    return values


def along(
    values: Real[Array, " n"], stack: Shaped[Array, " n *shape"]
) -> Real[Array, "..."]:
    """[n] -> [n, 1, ...], to meet the stack."""
    return jnp.reshape(values, (-1,) + (1,) * (stack.ndim - 1))


def _spread(where: PyTree[bool], reference: PyTree) -> list[bool]:
    """A prefix tree of bools as one bool a leaf."""
    try:
        spread = jax.tree.broadcast(where, reference)
    except ValueError as error:
        raise ValueError(f"where: wanted a prefix tree of bools; {error}") from error
    return [bool(on) for on in jax.tree.leaves(spread)]
