"""What some methods look at beside the models: a few training windows of each domain.

Fisher information of single predictions, second moments and means of the inputs of
every kernel, batches to find coefficients on by gradient.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxtricks import merging

from ..objective import Batch
from .text import NAMES
from .training import Task, batch

TOGETHER = 2  # windows of each domain in a batch that coefficients descend on


class Work(NamedTuple):
    """All that a merge may take: of every domain one, in the order of NAMES."""

    base: PyTree
    trees: list[PyTree]
    key: Array
    fishers: list[PyTree]
    grams: list[PyTree]  # f32[k, k] for a kernel [k, ...], else None
    inputs: list[PyTree]  # f32[k], their mean, else None
    batches: Batch  # of leaves [steps, windows, ...]
    metrics: Array  # f32[n], bits per byte of each on validation windows of all


def gatherer(of: Task) -> Callable[..., Work]:
    """(models, seed, metrics) -> what there is of one seed."""
    diagonal = jax.jit(partial(fisher_diagonal, of))
    inputs = jax.jit(partial(moments, of))
    whole = [own.full().some(of.flags.probe) for own in of.texts.train]
    windows = [batch(own) for own in whole]

    def gather(models: dict[str, PyTree], seed: int, metrics: np.ndarray) -> Work:
        key, trees = jax.random.key(seed), [models[name] for name in NAMES]
        fishers, seen, chosen = [], [], []
        rng = np.random.default_rng([seed, 99])
        for i, (tree, own) in enumerate(zip(trees, windows, strict=True)):
            fishers.append(diagonal(tree, own, jax.random.fold_in(key, i)))
            seen.append(inputs(tree, own))
            size = (of.flags.steps, TOGETHER)
            rows = rng.integers(len(own["mask"]), size=size)
            chosen.append(jax.tree.map(lambda x, rows=rows: x[rows], own))
        return Work(
            models["base"],
            trees,
            jax.random.fold_in(key, 100),
            fishers,
            [grams for grams, _ in seen],
            [means for _, means in seen],
            jax.tree.map(lambda *xs: jnp.concatenate(xs, axis=1), *chosen),
            jnp.asarray(metrics, jnp.float32),
        )

    return gather


def fisher_diagonal(of: Task, params: PyTree, windows: Batch, key: Array) -> PyTree:
    """Of one byte of each window, what it would be being drawn from the model."""

    def last(params, example):
        hidden, head = of.apply(params, {"inputs": example["inputs"]})
        own = jnp.arange(hidden.shape[1])[None] == example["last"][:, None]
        return jnp.sum(jnp.where(own[..., None], hidden, 0), axis=1) @ head

    at, drawn = jax.random.split(key)
    count = jnp.sum(windows["mask"], axis=1)
    place = jax.random.randint(at, count.shape, 0, count)
    examples = {"inputs": windows["inputs"], "last": place}
    return merging.fisher_diagonal(last, params, examples, key=drawn)


def moments(of: Task, params: PyTree, windows: Batch) -> tuple[PyTree, PyTree]:
    """Second moments and means of what every kernel is multiplied with; None for what
    is no kernel, the embedding, too."""
    spec = kernels(params)
    seen = merging.label_activations(
        lambda params, inputs: of.apply(params, {"inputs": inputs})[0],
        spec,
        params,
        windows["inputs"],
    )
    names = jax.tree.map(lambda words: words.split()[0], spec)
    grams = jax.tree.map(lambda name: _of(name, seen, merging.gram), names)
    means = jax.tree.map(lambda name: _of(name, seen, partial(jnp.mean, axis=0)), names)
    return grams, means


def kernels(params: PyTree) -> PyTree:
    """A spec that gives the inputs of every kernel a name of their own."""

    def axes(path, leaf) -> str:
        if path[-1].key != "kernel":
            return " ".join("_" * jnp.ndim(leaf))
        own = "_".join(str(part.key) for part in path[:-1])
        return " ".join([own, *"_" * (jnp.ndim(leaf) - 1)])

    return jax.tree_util.tree_map_with_path(axes, params)


def _of(name: str, seen: dict[str, Array], fn: Any) -> Any:
    return fn(seen[name]) if name in seen else None
