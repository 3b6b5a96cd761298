"""The objective of a batch and its gradient, over microbatches and devices.

Each example (a window, an image) has the weight that --weighting gives its mean loss;
the objective is the weighted mean over live positions. Sums and counts are added over
microbatches and devices and divided once at the end, so that neither padding nor
--microbatches changes the numbers beyond rounding. Weights see the whole batch: with
microbatches a first pass computes the losses.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxtricks import reduce

from . import mesh as meshes
from .tricks import Weighting

Batch = dict[str, Any]


class Sums(NamedTuple):
    """What is added over microbatches; of examples there are `rows`."""

    losses: Float[Array, " rows"]  # of each example's live positions, unweighted
    counts: Float[Array, " rows"]  # how many they are


class Weights(NamedTuple):
    """What a weighting makes of the batch: its loss is sum(weights l) / divisor."""

    weights: Float[Array, " batch"]
    divisor: Float[Array, ""]


def position_losses(
    apply: Callable, loss: Callable, params: PyTree, batch: Batch
) -> Float[Array, "rows ..."]:
    """f32 of the mask's shape, 0 where it is False.

    Of mixed images (mixup, cutmix) it is that of both labels, each by its share.
    """
    hidden, head = apply(params, batch)
    of = partial(loss, hidden, head, where=batch["mask"])
    if "inputs" in batch:
        return of(batch["targets"])
    if "labels_b" not in batch:
        return of(batch["labels"])
    share = batch["share"]
    return share * of(batch["labels"]) + (1 - share) * of(batch["labels_b"])


def gradient(
    loss: Callable,
    weighting: Weighting | None,
    params: PyTree,
    extra: PyTree,
    batch: Batch,
    parts: int,
) -> tuple[PyTree, Sums, Weights, PyTree]:
    """(gradient of the objective, plain losses, weights, the weighting's new state).

    The weights are constants, and the same wherever else in parameter space a gradient
    of this batch is taken.
    """
    counts = by_example(batch["mask"].astype(jnp.float32))
    if weighting is not None and parts == 1:

        def objective(params):
            losses = by_example(loss(params, batch))
            weights, after = weighted(weighting, extra, losses, counts)
            total = jnp.sum(losses * weights.weights)
            return total, (Sums(losses, counts), weights, after)

        grads, (sums, weights, extra) = jax.grad(objective, has_aux=True)(params)
        return divided(grads, weights), sums, weights, extra

    weights = Weights(jnp.ones_like(counts), jnp.sum(counts))
    if weighting is not None:  # which sees the whole batch, so all losses come first
        losses = unfold(
            jax.lax.map(lambda p: by_example(loss(params, p)), fold(batch, parts))
        )
        weights, extra = weighted(weighting, extra, losses, counts)
    grads, sums = accumulate(loss, params, batch, weights, parts)
    return grads, sums, weights, extra


def accumulate(
    loss: Callable, params: PyTree, batch: Batch, weights: Weights, parts: int
) -> tuple[PyTree, Sums]:
    """The gradient of sum(weights l) / divisor; and the examples' own sums."""

    def weighted_sum(params, part):
        found = loss(params, part)
        losses = by_example(found)
        counts = by_example(part["mask"].astype(jnp.float32))
        return jnp.sum(losses * part["weight"]), Sums(losses, counts)

    def add(carry, part):
        grads, sums = jax.grad(weighted_sum, has_aux=True)(params, part)
        return jax.tree.map(jnp.add, carry, grads), sums

    batch = batch | {"weight": weights.weights}
    if parts == 1:
        grads, sums = jax.grad(weighted_sum, has_aux=True)(params, batch)
    else:
        zeros = jax.tree.map(jnp.zeros_like, params)
        grads, sums = jax.lax.scan(add, zeros, fold(batch, parts))
        sums = unfold(sums)
    return divided(grads, weights), sums


def divided(grads: PyTree, weights: Weights) -> PyTree:
    """The one division; where nothing is live the gradient is 0."""
    divisor = jnp.where(weights.divisor > 0, weights.divisor, 1)
    return jax.tree.map(lambda g: g / divisor, grads)


def fold(batch: PyTree, parts: int) -> PyTree:
    """[rows, ...] -> [parts, rows / parts, ...], each part with every n-th row.

    So every device has its share of every part, and no row moves.
    """

    def leaf(x):
        x = jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1)
        return meshes.constrain(x, None, "data")

    return jax.tree.map(leaf, batch)


def unfold(batch: PyTree) -> PyTree:
    """The reverse of `fold`."""
    return jax.tree.map(
        lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]), batch
    )


def by_example(x: Float[Array, "rows ..."]) -> Float[Array, " rows"]:
    """The sum over each example's positions."""
    return jnp.sum(x.reshape(x.shape[0], -1), axis=-1)


def add_up(
    x: Float[Array, " rows"], domain: Int[Array, " rows"], domains: int
) -> Float[Array, " domains"]:
    """The sum over each domain's examples."""
    own = domain[:, None] == jnp.arange(domains)[None, :]
    return jnp.sum(jnp.where(own, x[:, None], 0), axis=0)


def weighted(
    given: Weighting, state: PyTree, sums: Float[Array, " batch"], counts: Array
) -> tuple[Weights, PyTree]:
    """Weights of the examples, from the sum and the number of each one's losses."""
    where: Bool[Array, " batch"] = counts > 0
    means = jnp.where(where, sums / jnp.maximum(counts, 1), 0)
    found, state = given.update(means, state, where=where)
    found = jax.lax.stop_gradient(found)
    if given.relative:
        divisor, _ = reduce.total(counts * found, where=where)
    else:
        divisor = jnp.sum(counts) / jnp.maximum(jnp.sum(where), 1)
    return Weights(found, divisor), state
