"""Permutation specs: which axes of a model's parameters may be permuted together.

A spec is a pytree like the parameters with one string a leaf, which names its axes as
einops does: "_ _ c0 c1" for a convolution's kernel. Axes of one name are permuted
alike. `_` and numbers stay as they are; "(heads 3 _)" is one axis of several factors,
the first outermost, "heads=4" says a size that does not follow; "(heads heads/value)"
permutes the values of each head by themselves; "..." stands for axes that stay.
"""

import re
from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._tree import paths

Permutation = dict[str, Any]  # name -> int[n], or int[parents, n] for "parent/name"


class Layout(NamedTuple):
    """A leaf seen by its spec."""

    shape: tuple[int, ...]  # of the leaf
    factors: tuple[int, ...]  # the sizes it is reshaped to
    names: tuple[str | None, ...]  # of the factors; None stays


def permutation_spec_from_labels(
    labels: PyTree | Sequence[tuple[str, str]], tree: PyTree
) -> PyTree:
    """A permutation spec from names of axes, checked against a model.

    Axes of one name are permuted alike; W[:, hidden] and V[hidden, :] say that hidden
    units may be in any order.

    Args:
      labels: a pytree like `tree` of strings as "in hidden", one name an axis, or of
        lists of names with None for axes that stay; or pairs (regular expression,
        string), of which the first that is found in a leaf's path ("blocks/0/kernel")
        counts. `_`, a number and what no pair matches stays; "(heads 3 _)" is one axis
        of several factors, "heads=4" where the size does not follow; "heads/value" is
        permuted for each of `heads` by itself; "..." is any number of axes that stay.
      tree: the parameters, or their shapes.
    Returns:
      A pytree like `tree` of strings.
    Gradient: none.
    Cost: none; on the host.
    Raises: ValueError for labels of another structure, a string that does not fit its
      leaf, sizes of one name that differ, a "parent/name" without its parent.
    Source: Ainsworth et al., "Git Re-Basin: Merging Models modulo Permutation
      Symmetries", 2022, arXiv:2209.04836, sec. 2. Differs: factors of an axis.
    Example:
      >>> params = {"w": jnp.ones((2, 6)), "b": jnp.ones(6), "out": jnp.ones((6, 3))}
      >>> rules = [("w", "_ hidden"), ("b", "hidden"), ("out", "hidden _")]
      >>> permutation_spec_from_labels(rules, params)
      {'b': 'hidden', 'out': 'hidden _', 'w': '_ hidden'}
    """
    if jax.tree.structure(labels) == jax.tree.structure(tree):
        spec = labels
    elif isinstance(labels, list | tuple) and all(map(_is_rule, labels)) and labels:
        rules = list(labels)
        spec = jax.tree.unflatten(
            jax.tree.structure(tree), [_first(rules, path) for path in by_path(tree)]
        )
    else:
        spec = jax.tree.map(_joined, labels, is_leaf=_is_label)
    layouts(spec, tree)
    return spec


def apply_permutation(
    spec: PyTree[str], permutation: Permutation, tree: PyTree
) -> PyTree:
    """The same model with its hidden units in another order.

    new[..., i, ...] = old[..., permutation[name][i], ...] on every axis of that name

    Args:
      spec: a permutation spec, a pytree like `tree` of strings.
      permutation: name -> int[n]; for "parent/name" int[parents, n], of which row i
        orders what is at place i of the parent afterwards. A name that is missing
        stays in order. May be traced.
      tree: the parameters.
    Returns:
      A tree like `tree`: the same function, if the spec is right.
    Gradient: linear in tree; none in the permutation.
    Cost: one gather for each permuted axis.
    Raises: ValueError for a spec that does not fit the tree, a name that the spec does
      not have, a permutation of another shape.
    Source: Ainsworth et al., "Git Re-Basin: Merging Models modulo Permutation
      Symmetries", 2022, arXiv:2209.04836, sec. 2. Differs: none.
    Example:
      >>> apply_permutation({"w": "_ h"}, {"h": [1, 0]}, {"w": jnp.eye(2)})["w"]
      Array([[0., 1.],
             [1., 0.]], dtype=float32)
    """
    all_layouts, sizes = layouts(spec, tree)
    permutation = checked(permutation, sizes)
    leaves, treedef = jax.tree.flatten(tree)
    moved = [
        permuted(jnp.asarray(leaf), layout, permutation)
        if any(name in permutation for name in layout.names)
        else leaf
        for leaf, layout in zip(leaves, all_layouts, strict=True)
    ]
    return jax.tree.unflatten(treedef, moved)


def permuted(x: Any, layout: Layout, permutation: Permutation, leave: int = -1) -> Any:
    """One leaf, numpy or jax, permuted along its factors but for one, and reshaped."""
    xp = np if isinstance(x, np.ndarray) else jnp
    x = x.reshape(layout.factors)
    # The parents first: the row of a child is that of its parent's new place.
    for child in (False, True):
        for axis, name in enumerate(layout.names):
            if name is None or ("/" in name) != child or axis == leave:
                continue
            if name in permutation:
                index = permutation[name]
                if child:
                    up = layout.names.index(parent(name))
                    shape = [1] * x.ndim
                    shape[up], shape[axis] = index.shape
                    index = index if up < axis else index.T
                    x = xp.take_along_axis(x, index.reshape(shape), axis=axis)
                else:
                    x = xp.take(x, index, axis=axis)
    return x.reshape(layout.shape)


def parent(name: str) -> str:
    """Of "heads/value", "heads"; a name without one is its own."""
    return name.split("/")[0]


def identity(sizes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The permutation that leaves all in place."""
    return {
        name: np.broadcast_to(np.arange(shape[-1]), shape).copy()
        for name, shape in sizes.items()
    }


def checked(permutation: Permutation, sizes: dict[str, tuple[int, ...]]) -> Permutation:
    """Arrays of the right shapes, or ValueError."""
    found = {}
    for name, index in permutation.items():
        if name not in sizes:
            known = ", ".join(sizes) or "none"
            raise ValueError(f"permutation: {name!r} is not in the spec, only {known}")
        index = np.asarray(index) if isinstance(index, list | tuple) else index
        if index.shape != sizes[name]:
            said = f"wanted shape {sizes[name]}, came {index.shape}"
            raise ValueError(f"permutation[{name!r}]: {said}")
        found[name] = index
    return found


def layouts(
    spec: PyTree, tree: PyTree
) -> tuple[list[Layout], dict[str, tuple[int, ...]]]:
    """Every leaf's layout, and every name's shape: (n,) or (parents, n)."""
    labels, leaves = paths(spec), paths(tree)
    wrong = [f"{p} is missing" for p in leaves if p not in labels]
    wrong += [f"{p} is not wanted" for p in labels if p not in leaves]
    if wrong:
        raise ValueError("spec: " + "; ".join(wrong))
    axes = {
        path: _axes(path, labels[path], jnp.ndim(leaf)) for path, leaf in leaves.items()
    }
    shapes = {path: jnp.shape(leaf) for path, leaf in leaves.items()}
    sizes: dict[str, int] = {}
    axes = {
        path: [[_said(path, word, sizes) for word in part] for part in parts]
        for path, parts in axes.items()
    }
    for _ in range(1 + sum(map(len, axes.values()))):
        before = len(sizes)
        for path, parts in axes.items():
            for names, size in zip(parts, shapes[path], strict=True):
                _infer(path, names, size, sizes)
        if len(sizes) == before:
            break
    found = [_layout(path, axes[path], shapes[path], sizes) for path in leaves]
    full = {}
    for path, layout in zip(leaves, found, strict=True):
        for name in layout.names:
            if name is None:
                continue
            up = parent(name)
            if up != name and layout.names.count(up) != 1:
                said = f"{name!r} wants {up!r} once in the same leaf"
                raise ValueError(f"spec: {path}: {said}, came {labels[path]!r}")
            full[name] = (sizes[name],) if up == name else (sizes[up], sizes[name])
    return found, full


def _axes(path: str, label: Any, ndim: int) -> list[list[str]]:
    """ "a (b 3)" -> [["a"], ["b", "3"]], or ValueError."""
    if not isinstance(label, str):
        raise ValueError(f"spec: {path}: wanted a string, came {label!r}")
    tokens = re.findall(r"\([^()]*\)|[^\s()]+|[()]", label)
    if tokens.count("...") == 1:
        at = tokens.index("...")
        tokens[at : at + 1] = ["_"] * (ndim - len(tokens) + 1)
    parts = [token.strip("()").split() for token in tokens]
    name = r"_|\d+|[A-Za-z][\w.:-]*(/[A-Za-z][\w.:-]*)?(=\d+)?"
    for token, part in zip(tokens, parts, strict=True):
        if not part or not all(re.fullmatch(name, word) for word in part):
            raise ValueError(f"spec: {path}: wanted names of axes, came {token!r}")
    if len(parts) != ndim:
        said = f"wanted {ndim} axes, came {label!r}"
        raise ValueError(f"spec: {path}: {said}")
    return parts


def _said(path: str, word: str, sizes: dict[str, int]) -> str:
    """ "heads=4" -> "heads", its size kept."""
    name, _, size = word.partition("=")
    if size and sizes.setdefault(name, int(size)) != int(size):
        raise ValueError(f"spec: {path}: {word}, where it was {sizes[name]} before")
    return name


def _infer(path: str, names: list[str], size: int, sizes: dict[str, int]) -> None:
    """Learns the size of a name where it is the only one not known in its axis."""
    known = [int(n) if n.isdigit() else sizes.get(n) for n in names]
    unknown = [i for i, n in enumerate(known) if n is None]
    if len(unknown) == 1 and names[unknown[0]] != "_":
        rest = prod(n for n in known if n is not None)
        if rest == 0 or size % rest:
            said = f"an axis of {size} is not {' x '.join(names)}"
            raise ValueError(f"spec: {path}: {said}")
        sizes[names[unknown[0]]] = size // rest


def _layout(path, parts, shape, sizes) -> Layout:
    factors, names = [], []
    for axis, size in zip(parts, shape, strict=True):
        known = [int(n) if n.isdigit() else sizes.get(n) for n in axis]
        open_ = [i for i, n in enumerate(known) if n is None]
        rest = prod(n for n in known if n is not None)
        said = f"an axis of {size} is not ({' '.join(axis)})"
        where = {n: sizes[n] for n in axis if n in sizes}
        said += f" with {where}" if where else ""
        if len(open_) > 1:
            raise ValueError(f"spec: {path}: {said}: several sizes are not known")
        if open_:
            if rest == 0 or size % rest:
                raise ValueError(f"spec: {path}: {said}")
            known[open_[0]] = size // rest
        elif rest != size:
            raise ValueError(f"spec: {path}: {said}")
        factors += known
        names += [None if n == "_" or n.isdigit() else n for n in axis]
    return Layout(tuple(shape), tuple(factors), tuple(names))


def _is_rule(x: Any) -> bool:
    return isinstance(x, tuple) and len(x) == 2 and all(isinstance(s, str) for s in x)


def _is_label(x: Any) -> bool:
    named = isinstance(x, list | tuple) and all(
        n is None or isinstance(n, str) for n in x
    )
    return named or isinstance(x, str)


def _joined(label: Any) -> str:
    return label if isinstance(label, str) else " ".join(n or "_" for n in label)


def _first(rules: Sequence[tuple[str, str]], path: str) -> str:
    return next((label for pattern, label in rules if re.search(pattern, path)), "...")


def by_path(tree: PyTree) -> dict[str, Any]:
    """Path as a/b/0 -> leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in leaves}


def labelled(labels: dict[str, str], tree: PyTree) -> PyTree:
    """The spec from the label of each path, of which none may be missing."""
    found = by_path(tree)
    for path in found:
        if path not in labels:
            said = "wanted no such leaf; trace the model with permutation_spec"
            raise ValueError(f"tree: {path}: {said}")
    treedef = jax.tree.structure(tree)
    spec = jax.tree.unflatten(treedef, [labels[path] for path in found])
    layouts(spec, tree)
    return spec


def natural(path: str) -> list:
    """To sort by: layer10 after layer9."""
    return [
        (1, int(w), "") if w.isdigit() else (0, 0, w) for w in re.split(r"(\d+)", path)
    ]
