"""From a merge of stacked arrays to a merge of pytrees."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ._namespace import Tree


def merge(
    merge_leaves: Callable[[Iterator[tuple]], Iterable[Any]],
    reference: Tree,
    trees: Sequence[Tree],
    where: Tree | None,
    name: str = "trees",
    *,
    mask: Sequence[Tree] | None = None,
) -> Tree:
    """The reference with its merged leaves replaced.

    merge_leaves gets pairs (leaf of the reference, that leaf of all trees stacked), in
    at least f32 and one at a time, and gives the merged leaves. A leaf that is no
    float, or that `where`, a prefix tree of bools, rules out, stays the reference's.
    `mask`, a tree of bools for each of `trees`, makes triples of the pairs.
    """
    import jax
    import jax.numpy as jnp

    from .._mask import at_least_f32
    from .._tree import is_float
    from ._beside import broadcast

    if not trees:
        raise ValueError(f"{name}: wanted at least one, came none")
    if mask is not None and len(mask) != len(trees):
        raise ValueError(f"mask: wanted {len(trees)} trees of bools, came {len(mask)}")
    leaves, treedef = jax.tree.flatten(reference)
    wanted = broadcast("where", True if where is None else where, reference)
    live = [i for i, leaf in enumerate(leaves) if wanted[i] and is_float(leaf)]
    columns = _columns(name, trees, reference)
    masks = None if mask is None else _columns("mask", mask, reference)

    def pair(i):
        stack = jnp.stack([at_least_f32(x) for x in columns[i]])
        both = at_least_f32(leaves[i]), stack
        return both if masks is None else (*both, jnp.stack(masks[i]))

    for i, leaf in zip(live, merge_leaves(map(pair, live)), strict=True):
        leaves[i] = leaf.astype(jnp.result_type(leaves[i]))
    return jax.tree.unflatten(treedef, leaves)


def stacked(leaf: Callable, trees: Sequence[Tree], where: Tree | None) -> Tree:
    """`merge` by `leaf(stack)`; what is not merged is the first tree's."""
    first = trees[0] if trees else None
    return merge(lambda pairs: (leaf(x) for _, x in pairs), first, trees, where)


def from_base(
    leaf: Callable, base: Tree, trees: Sequence[Tree], where: Tree | None
) -> Tree:
    """`merge` by `leaf(base, stack)`; what is not merged is the base's."""
    return merge(lambda pairs: (leaf(b, x) for b, x in pairs), base, trees, where)


def _columns(name: str, trees: Sequence[Tree], reference: Tree) -> list[tuple]:
    """For each leaf of the reference those of all trees."""
    import jax

    from .._tree import arranged

    alike = [arranged(f"{name}[{i}]", x, reference) for i, x in enumerate(trees)]
    return list(zip(*map(jax.tree.leaves, alike), strict=True))
