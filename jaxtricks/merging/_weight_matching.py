"""Matching the hidden units of two models by their weights, without data.

Each name of a permutation spec is one linear assignment, solved exactly, the others
held still. Git Re-Basin: Ainsworth et al., arXiv:2209.04836.
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PyTree

from .._check import at_least
from .._tree import arranged, is_float
from ._matching import Matching, assign, on_host
from ._permutation import (
    Layout,
    Permutation,
    checked,
    identity,
    layouts,
    parent,
    permuted,
)


def weight_matching(
    spec: PyTree[str],
    tree: PyTree,
    other: PyTree,
    *,
    orders: int = 8,
    init: Permutation | None = None,
    max_sweeps: int = 100,
) -> Matching:
    """The order of another model's units that brings its weights nearest; no data.

    maximises sum_leaves <tree, permuted other>, one name after the other, each an
    exact assignment given the rest, until no name gains

    Args:
      spec: a permutation spec.
      tree: the model that stays.
      other: the model to permute, of the same shapes.
      orders: from how many orders of the names to start, >= 1: as in the spec, its
        reverse, then those of numpy's default_rng(2), (3), ...; the best is kept.
      init: the permutation to start from; None is the identity.
      max_sweeps: over all names, at most, >= 1.
    Returns:
      Matching: `permutation` for `apply_permutation` on other; `objective`, the sum
      above over the leaves that the spec permutes; `scores`, what each pair adds.
    Gradient: none: not traceable, on the host.
    Cost: a sweep is for each name one product of the leaves that have it, and an
      assignment, O(n^3).
    Raises: ValueError for trees or a spec that differ (with the paths), orders < 1.
    Source: Ainsworth et al., "Git Re-Basin: Merging Models modulo Permutation
      Symmetries", 2022, arXiv:2209.04836, alg. 1. Differs: several orders, as one may
      stop far from the best; "parent/name" is matched for each pair of parents first.
    Example:
      >>> a = {"in": np.eye(3), "out": np.arange(3.0)[:, None]}
      >>> b = {"in": np.eye(3)[:, [2, 0, 1]], "out": np.array([[2.0], [0.0], [1.0]])}
      >>> found = weight_matching({"in": "_ h", "out": "h _"}, a, b)
      >>> found.permutation["h"], found.objective
      (array([1, 2, 0]), array(8.))
    """
    at_least("orders", orders, 1)
    at_least("max_sweeps", max_sweeps, 1)
    search = _Search.of(spec, tree, other, init)
    best = None
    # Few names have few orders.
    tried = {tuple(_order(search.names, i)): None for i in range(orders)}
    for order in tried:
        found = search.climb(order, max_sweeps)
        if best is None or found.objective > best.objective:
            best = found
        if best.objective >= search.most() * (1 - 1e-9):
            break
    assert best is not None
    return best


class _Leaf(NamedTuple):
    """One parameter of both models that the spec permutes."""

    tree: np.ndarray
    other: np.ndarray
    layout: Layout


class _Search(NamedTuple):
    """Coordinate ascent over the names. The rows of a "parent/name" are held by the
    parent's OLD place here, so that they travel with it."""

    leaves: list[_Leaf]
    sizes: dict[str, tuple[int, ...]]
    start: dict[str, np.ndarray]

    @classmethod
    def of(cls, spec, tree, other, init) -> "_Search":
        other = arranged("other", other, tree)
        found, sizes = layouts(spec, tree)
        start = identity(sizes)
        start.update({k: np.asarray(v) for k, v in checked(init or {}, sizes).items()})
        for name in sizes:
            if parent(name) != name:
                rows = np.empty_like(start[name])
                rows[start[parent(name)]] = start[name]
                start[name] = rows
        pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), found, strict=True)
        leaves = [
            _Leaf(on_host(a).reshape(layout.factors), on_host(b), layout)
            for a, b, layout in pairs
            if is_float(a) and any(layout.names)
        ]
        return cls(leaves, sizes, start)

    @property
    def names(self) -> list[str]:
        return list(self.sizes)

    def most(self) -> float:
        """No order reaches more: Cauchy and Schwarz."""
        squares = [
            [np.vdot(x, x.astype(np.float64)) for x in (leaf.tree, leaf.other)]
            for leaf in self.leaves
        ]
        return float(np.sqrt(np.prod(np.sum(squares, axis=0))) if squares else 0.0)

    def climb(self, order: Sequence[str], max_sweeps: int) -> Matching:
        state = {k: v.copy() for k, v in self.start.items()}
        value = self.objective(state)
        for _ in range(max_sweeps):
            before = value
            for name in order:
                tried = {**state, **self.step(name, state)}
                reached = self.objective(tried, name, state)
                if reached > 1e-9 * abs(value):
                    state, value = tried, value + reached
            if value <= before:
                break
        scores = {name: self.scores(name, state) for name in self.names}
        return Matching(self.outside(state), np.asarray(self.objective(state)), scores)

    def step(self, name: str, state: dict) -> dict[str, np.ndarray]:
        """The best order of one name; of a parent, with that of its children."""
        if parent(name) != name:
            rows, _ = assign(self.own(name, state))
            new = np.empty_like(rows)
            new[state[parent(name)]] = rows
            return {name: new}
        cross = self.cross(name, state)
        each = {}
        for child in self.names:
            if child != name and parent(child) == name:
                rows, gain = self.gains(child, state)
                cross, each[child] = cross + gain, rows
        index, _ = assign(cross)
        found = {name: index}
        for child, rows in each.items():
            new = np.empty_like(state[child])
            new[index] = rows[np.arange(len(index)), index]
            found[child] = new
        return found

    def gains(self, child: str, state: dict) -> tuple[np.ndarray, np.ndarray]:
        """For every pair of parents the child's best order and what it adds."""
        cross = self.cross(child, state)
        rows, best = assign(cross)
        now = np.broadcast_to(state[child][None], rows.shape)[..., None]
        terms = np.take_along_axis(cross, now, axis=-1)[..., 0]
        return rows, (best - terms).sum(-1)

    def cross(self, name: str, state: dict) -> Float[np.ndarray, "*parents n n"]:
        """<tree at unit i, other at unit j>, all else permuted; f64. Of a "parent/name"
        for every pair of parents: [parents, parents, n, n]."""
        shape, up = self.sizes[name], parent(name)
        total = np.zeros((prod(shape),) * 2)
        # The other's parents stay in place, and with them the rows of their children.
        at = {**state, up: np.arange(shape[0])} if up != name else state
        for leaf in self.leaves:
            for axis, own in enumerate(leaf.layout.names):
                if own != name:
                    continue
                other = self.moved(leaf, at, leave=axis)
                here = (axis,) if up == name else (leaf.layout.names.index(up), axis)
                a, b = (
                    np.moveaxis(x, here, range(len(here))).reshape(len(total), -1)
                    for x in (leaf.tree, other)
                )
                total += a @ b.T
        if up == name:
            return total
        return total.reshape(*shape, *shape).swapaxes(1, 2)

    def own(self, name: str, state: dict) -> Float[np.ndarray, "*parents n n"]:
        """`cross`, of a "parent/name" for the pairs that the parents' order makes."""
        cross = self.cross(name, state)
        if parent(name) == name:
            return cross
        index = state[parent(name)]
        return cross[np.arange(len(index)), index]

    def moved(self, leaf: _Leaf, state: dict, leave: int = -1) -> np.ndarray:
        """The other model's leaf by its factors, permuted but for one axis."""
        names = leaf.layout.names
        here = {k: state[k] for k in names if k}
        stays = names[leave] if leave >= 0 else None
        for k in here:
            # A parent that stays in place leaves the children's rows there too.
            if parent(k) != k and parent(k) != stays:
                here[k] = here[k][here[parent(k)]]
        return permuted(leaf.other, leaf.layout, here, leave).reshape(
            leaf.layout.factors
        )

    def objective(self, state: dict, name: str = "", old: dict | None = None) -> float:
        """The sum over all leaves, or how much those of one name gain over `old`."""
        total = 0.0
        for leaf in self.leaves:
            if name and not any(
                n and parent(n) == parent(name) for n in leaf.layout.names
            ):
                continue
            for sign, at in ((1, state), (-1, old)):
                if at is not None:
                    dot = np.vdot(leaf.tree, self.moved(leaf, at).astype(np.float64))
                    total += sign * float(dot)
        return total

    def scores(self, name: str, state: dict) -> np.ndarray:
        """What each pair of units adds to the objective."""
        cross, index = self.own(name, state), state[name]
        if parent(name) != name:
            index = index[state[parent(name)]]
        return np.take_along_axis(cross, index[..., None], axis=-1)[..., 0]

    def outside(self, state: dict) -> Permutation:
        """With the rows of a "parent/name" by the parent's NEW place."""
        return {
            k: v if parent(k) == k else v[state[parent(k)]] for k, v in state.items()
        }


def _order(names: Sequence[str], i: int) -> list[str]:
    if i < 2:
        return list(names)[:: -1 if i else 1]
    return list(np.random.default_rng(i).permutation(np.array(names, object)))
