"""Training as a function of example weights: what everything here differentiates."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float

from jaxtricks import metagrad, optimizers

from ..small import network, sets, smooth
from .config import Magic


class Trainer(NamedTuple):
    activation: str
    tx: optax.GradientTransformation


class Task(NamedTuple):
    """One seed's: what is trained on, in which order, and what is measured."""

    images: Array  # f32[n, h, w, c]
    labels: Array  # i32[n]
    order: Array  # i32[updates, batch]
    target_images: Array  # f32[targets, h, w, c]
    target_labels: Array  # i32[targets]
    key: Array  # of the first parameters


def trainer(name: str, flags: Magic) -> Trainer:
    """GELU, a low rate that begins and ends at 0, and an eps inside Adam's root; or
    none of it."""
    if name == "unsmooth":
        tx = optax.adam(flags.rough_rate)
        return Trainer("relu", optimizers.differentiable(tx))
    warm = max(1, flags.updates // 10)
    rate = optax.warmup_cosine_decay_schedule(0.0, flags.rate, warm, flags.updates + 1)
    # What it adds is below f32's digits but for gradients that are all but 0.
    tx = optax.adam(rate, eps_root=1e-16)
    return Trainer("gelu", optimizers.differentiable(tx))


def task(data: sets.Images, flags: Magic, seed: int) -> Task:
    sizes = np.full(data.classes, flags.per_class)
    drawn = sets.draw(data, sizes, noise=0.0, seeds=1, seed=seed)
    batch = flags.batch_size
    epochs = -(-flags.updates // (len(drawn.labels[0]) // batch))
    order = sets.orders(drawn.labels, epochs, batch, seed)[0, : flags.updates]
    rng = np.random.default_rng([seed, 2])
    rows = rng.permutation(len(data.held_out))[: flags.targets]
    return Task(
        jnp.asarray(data.images[drawn.index[0]]),
        jnp.asarray(drawn.labels[0]),
        jnp.asarray(order),
        jnp.asarray(data.held_out[rows]),
        jnp.asarray(data.held_out_labels[rows].astype(np.int32)),
        jax.random.key(seed),
    )


def another(of_task: Task, i: Array) -> Task:
    """The same images from other first parameters, in another order."""
    key = jax.random.fold_in(of_task.key, 2 + i)
    place = jax.random.permutation(key, len(of_task.labels))
    return of_task._replace(order=place[of_task.order], key=key)


def start(of: Trainer, flags: Magic, of_task: Task):
    shape = of_task.images.shape[1:]
    params = network.init(of_task.key, "mlp", shape, flags.width, 10)
    return params, of.tx.init(params)


def step(of: Trainer, of_task: Task, carry, index, weights: Float[Array, " n"]):
    """One of Adam, on sum_i w_i l_i over the batch's size."""
    params, state = carry

    def loss(params):
        images, labels = of_task.images[index], of_task.labels[index]
        each = smooth.each(params, images, labels, of.activation)
        return jnp.sum(weights[index] * each) / len(index)

    updates, state = of.tx.update(jax.grad(loss)(params), state, params)
    return (optax.apply_updates(params, updates), state), None


def measured(of: Trainer, of_task: Task, carry) -> Float[Array, " targets"]:
    """phi: the loss on each target; losses of confident networks are kept apart."""
    images, labels = of_task.target_images, of_task.target_labels
    return jax.nn.softplus(-smooth.margins(carry[0], images, labels, of.activation))


def train(of: Trainer, flags: Magic, of_task: Task, weights: Float[Array, " n"]):
    """(parameters, phi); a gradient through it stores one carry a step."""

    def one(carry, index):
        return step(of, of_task, carry, index, weights)

    init = start(of, flags, of_task)
    carry, _ = metagrad.scan(one, init, of_task.order, policy="step")
    return carry[0], measured(of, of_task, carry)


def influence(of: Trainer, flags: Magic, of_task: Task) -> metagrad.Influence:
    return metagrad.magic(
        partial(step, of, of_task),
        start(of, flags, of_task),
        of_task.order,
        partial(measured, of, of_task),
        jnp.ones(len(of_task.labels)),
        policy="step",
    )


def ensemble(of: Trainer, flags: Magic, of_task: Task):
    """Parameters [models - 1, ...] of other trainings on the same images."""
    ones = jnp.ones(len(of_task.labels))

    def one(i):
        return train(of, flags, another(of_task, i), ones)[0]

    return jax.vmap(one)(jnp.arange(flags.models - 1))


def retrained(
    of: Trainer, flags: Magic, of_task: Task, weights: Float[Array, "subsets n"]
) -> Float[Array, "subsets targets"]:
    """phi after training with each of these weights, some side by side."""
    run = partial(train, of, flags, of_task)
    return lax.map(lambda w: run(w)[1], weights, batch_size=min(10, len(weights)))


def left_out(
    flags: Magic, part: float, seed: int, n: int
) -> Float[np.ndarray, "subsets n"]:
    """Weights of 0 for what is left out, 1 for the rest."""
    rng = np.random.default_rng([seed, 3, round(1e6 * part)])
    rows = [rng.permutation(n)[: round(part * n)] for _ in range(flags.subsets)]
    weights = np.ones((flags.subsets, n), np.float32)
    for of, out in zip(weights, rows, strict=True):
        of[out] = 0
    return weights
