"""Trains the two networks of a pair at once, aligns them, merges them, measures."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from jaxtricks import merging

from ..small import network, sets
from ..small.network import Params
from ..small.sets import Images
from .config import Rebasin

# How the second network is permuted: as it is, by the weights of both, by what their
# units do on the training images.
MATCHED = ("nothing", "weights", "activations")
MERGED = ("average", "repaired", "pleas")


class Task(NamedTuple):
    """What the pairs of a model share: compiled once."""

    model: str
    apply: Callable[[Params, Array], Array]  # parameters, images -> logits
    init: Callable[[int], Params]  # of a seed
    fit: Callable[[Params, Array], Params]  # of both networks, by their orders
    line: Callable[..., merging.Barrier]  # between two networks, on images, labels
    loss: Callable[[Params, Array, Array], Array]
    accuracy: Callable[[Params, Array, Array], Array]


def task(model: str, data: Images, flags: Rebasin) -> Task:
    width = flags.width if model == "mlp" else flags.channels
    shape = data.images.shape[1:]
    apply = partial(network.apply, model=model)

    def init(seed: int) -> Params:
        key = jax.random.key(seed)
        return network.init(key, model, shape, width, data.classes)

    def loss(params, images, labels):
        logits = network.predict(params, images, model)
        each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(each)

    def accuracy(params, images, labels):
        best = jnp.argmax(network.predict(params, images, model), axis=-1)
        return jnp.mean(best == labels)

    def line(a, b, images, labels):
        own = partial(loss, images=images, labels=labels)
        return merging.interpolation_barrier(own, a, b, points=flags.points)

    fit = jax.vmap(partial(_fit, loss, flags, *_on_device(data)))
    programs = map(jax.jit, (fit, line, loss, accuracy))
    return Task(model, apply, init, *programs)


def _on_device(data: Images) -> tuple[Array, Array]:
    return jnp.asarray(data.images), jnp.asarray(data.labels)


def _fit(loss, flags: Rebasin, images, labels, params: Params, order) -> Params:
    """One network: AdamW over i32[steps, batch], which images each step sees."""
    rate = optax.cosine_decay_schedule(flags.lr, len(order))
    tx = optax.adamw(rate, weight_decay=flags.weight_decay)

    def step(carry, rows):
        params, state = carry
        grads = jax.grad(loss)(params, images[rows], labels[rows])
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), order)[0][0]


def trained(task: Task, pair: int, data: Images, flags: Rebasin) -> list[Params]:
    """Two networks; parameters and the order of the images follow from their seeds."""
    seeds = [2 * (flags.seed + pair) + k for k in range(2)]
    labels = data.labels[None]
    orders = [
        sets.orders(labels, flags.epochs, flags.batch_size, seed)[0] for seed in seeds
    ]
    start = jax.tree.map(lambda *x: jnp.stack(x), *map(task.init, seeds))
    both = task.fit(start, jnp.asarray(np.stack(orders)))
    return [jax.tree.map(lambda x, k=k: x[k], both) for k in range(2)]


def measure(task: Task, pair: int, data: Images, flags: Rebasin) -> dict:
    """Losses on the line, its barrier, and how good each merge is, by the matching."""
    a, b = trained(task, pair, data, flags)
    held_out = jnp.asarray(data.held_out), jnp.asarray(data.held_out_labels)
    images, labels = _on_device(data)
    rows = np.random.default_rng(0).permutation(len(images))[: flags.calibration]
    seen = images[np.sort(rows)]
    spec = spec_of(task.model, a)
    found: dict = {"losses": {}, "barrier": {}, "training_barrier": {}, "merged": {}}
    for how, matching in matchings(task, spec, a, b, seen).items():
        aligned = merging.apply_permutation(spec, matching.permutation, b)
        line = task.line(a, aligned, *held_out)
        found["losses"][how] = line.losses
        found["barrier"][how] = float(line.barrier)
        own = task.line(a, aligned, images, labels)
        found["training_barrier"][how] = float(own.barrier)
        merge = partial(merging.pleas, task.apply, spec, a, b, seen, matching=matching)
        average = merging.linear([a, aligned])
        merges = {
            "average": average,
            "repaired": repaired(average, a, aligned, seen, task.model),
            "pleas": merge(),
        }
        found["merged"][how] = _worth(task, merges, held_out)
        if how == "weights":
            wider = {
                "average": merge(separate=flags.apart, least_squares=False),
                "pleas": merge(separate=flags.apart),
            }
            found["merged"]["wider"] = _worth(task, wider, held_out)
    logits = sum(network.predict(p, held_out[0], task.model) for p in (a, b))
    together = jnp.mean(jnp.argmax(logits, -1) == held_out[1])
    each = [float(task.accuracy(p, *held_out)) for p in (a, b)]
    return {"each": each, "ensemble": float(together), **found}


def spec_of(model: str, params: Params) -> Params:
    if model == "mlp":
        return merging.mlp_permutation_spec(params)
    return merging.convnet_permutation_spec(params)


def matchings(task: Task, spec, a: Params, b: Params, images) -> dict:
    """MATCHED, each with the scores that PLeaS orders pairs by."""
    seen = [merging.label_activations(task.apply, spec, p, images) for p in (a, b)]
    by_weights = merging.weight_matching(spec, a, b)
    same = {k: np.arange(len(v)) for k, v in by_weights.permutation.items()}
    return {
        "nothing": by_weights._replace(permutation=same),
        "weights": by_weights,
        "activations": merging.activation_matching(*seen),
    }


def repaired(merged: Params, a: Params, b: Params, images, model: str) -> Params:
    """Layer after layer, hidden units get the mean and spread of those they are of."""
    merged = list(merged)
    for k in range(len(merged) - 1):
        seen = [_preactivations(p, k, images, model) for p in (a, b, merged)]
        merged[k] = merging.fold_repair(*merged[k], merging.repair(*seen))
    return merged


def _preactivations(params: Params, k: int, images, model: str) -> Array:
    """Of hidden layer k."""
    x = images if model == "convnet" else images.reshape(len(images), -1)
    for i, (w, b) in enumerate(params[: k + 1]):
        x = jax.nn.relu(x) if i else x
        x = (network.patches(x) if model == "convnet" else x) @ w
        x = x + jnp.broadcast_to(b, x.shape)
    return x


def _worth(task: Task, merges: dict[str, Params], held_out) -> dict:
    """name -> accuracy and loss on what is held out."""
    return {
        name: {
            "accuracy": float(task.accuracy(params, *held_out)),
            "loss": float(task.loss(params, *held_out)),
        }
        for name, params in merges.items()
    }
