"""What stands beside the trees of a merge: a value for each leaf that is merged."""

from typing import Any

import jax
from jaxtyping import PyTree

from .._tree import is_float


def spread(
    name: str, prefix: Any, reference: PyTree, where: PyTree[bool] | None
) -> list:
    """A prefix tree as one value for each leaf that is merged, in their order."""
    values = broadcast(name, prefix, reference)
    live = broadcast("where", True if where is None else where, reference)
    leaves = jax.tree.leaves(reference)
    rows = zip(values, live, leaves, strict=True)
    return [value for value, on, leaf in rows if on and is_float(leaf)]


def broadcast(name: str, prefix: Any, reference: PyTree) -> list:
    """A prefix tree as one value for each leaf."""
    values = []

    def spread_over(value, part):
        values.extend([value] * len(jax.tree.leaves(part)))

    try:  # None is a value too
        jax.tree.map(spread_over, prefix, reference, is_leaf=lambda x: x is None)
    except ValueError as error:
        raise ValueError(f"{name}: wanted a prefix tree; {error}") from error
    return values
