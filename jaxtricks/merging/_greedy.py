"""The greedy soup: an ingredient goes in if the soup gets no worse."""

from collections.abc import Callable, Sequence
from math import inf, isnan
from typing import NamedTuple

from jaxtyping import PyTree

from .._tree import add_scaled, check_alike, promote
from ._trees import merge


class Soup(NamedTuple):
    """A soup and what is in it."""

    tree: PyTree  # like the trees given
    chosen: tuple[int, ...]  # their numbers, in the order in which they went in
    score: float  # of the soup


def greedy_soup(
    trees: Sequence[PyTree],
    score: Callable[[PyTree], float],
    *,
    scores: Sequence[float] | None = None,
    where: PyTree[bool] | None = None,
) -> Soup:
    """The average of those fine-tunes that help; for a sweep of hyperparameters.

    in order of score: soup <- mean of soup's and tree_i, unless score falls

    Args:
      trees: n pytrees of one structure. The first gives the result its dtypes and the
        leaves that are not merged.
      score: pytree -> a number on held-out data, more is better; not traced.
      scores: those of the trees by themselves, if they are known.
      where: prefix tree of bools, True merges (static).
    Returns:
      `Soup`: the tree, whose it is, and its score, never below the best tree's.
    Gradient: none, a search on the host.
    Cost: n calls of score, another n without scores; a running sum of one tree, in at
      least f32.
    Raises: ValueError for no trees, for trees that differ (with the paths), for scores
      that are not one a tree.
    Source: Wortsman et al., "Model soups: averaging weights of multiple fine-tuned
      models improves accuracy without increasing inference time", 2022,
      arXiv:2203.05482, recipe 1. Differs: none.
    Example:
      >>> import jax.numpy as jnp
      >>> trees = [{"w": jnp.array(x)} for x in (1.0, 4.0, 2.0)]
      >>> soup = greedy_soup(trees, lambda tree: -abs(float(tree["w"]) - 1.4))
      >>> soup.chosen, soup.tree
      ((0, 2), {'w': Array(1.5, dtype=float32)})
    """
    if not trees:
        raise ValueError("trees: wanted at least one, came none")
    if scores is not None and len(scores) != len(trees):
        raise ValueError(f"scores: wanted {len(trees)}, came {len(scores)}")
    for i, tree in enumerate(trees):
        check_alike(f"trees[{i}]", tree, trees[0])

    def share(total, count):
        def merge_leaves(pairs):
            return (stack[0] / count for _, stack in pairs)

        return merge(merge_leaves, trees[0], [total], where)

    found = map(score, trees) if scores is None else scores
    alone = [-inf if isnan(x) else float(x) for x in found]
    order = sorted(range(len(trees)), key=lambda i: -alone[i])
    chosen = order[:1]
    best, total = alone[order[0]], promote(trees[order[0]])
    soup = share(total, 1)
    for i in order[1:]:
        more = add_scaled(total, 1, trees[i])
        mixed = share(more, len(chosen) + 1)
        reached = float(score(mixed))
        if reached >= best:
            chosen, best, total, soup = [*chosen, i], reached, more, mixed
    return Soup(soup, tuple(chosen), best)
