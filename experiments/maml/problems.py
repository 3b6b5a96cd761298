"""What is adapted to: tasks drawn from a key, for training and never seen."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from ..small import network, sets
from .config import Maml

QUERY = 100  # points that an adapted wave is measured at
TRAINING = 6  # digits; the other four are never seen
HELD = 20  # images of a class that an adapted network is measured on


class Problem(NamedTuple):
    """draw(key, kind) -> (support, query), of one task: of "training", of "choice", to
    choose rates on, or "new"."""

    init: Callable[..., PyTree]
    apply: Callable[[PyTree, Array], Array]
    loss: Callable[[PyTree, PyTree], Float[Array, ""]]
    measure: Callable[[PyTree, PyTree], Float[Array, ""]]
    draw: Callable[..., tuple[PyTree, PyTree]]
    joint_init: Callable[..., PyTree]
    joint_loss: Callable[..., Float[Array, ""]]  # (params, key), with no adaptation
    joint_end: Callable[[PyTree], PyTree]  # what new tasks begin from after it
    rate: float
    steps: int  # of adaptation while training
    iterations: int
    higher: bool  # whether what is measured is better where it is higher


def problem(name: str, flags: Maml) -> Problem:
    return sinusoid(flags) if name == "sinusoid" else digits(flags)


def sinusoid(flags: Maml) -> Problem:
    """a sin(x - phase) from a few points: a in [0.1, 5], phase in [0, pi], |x| <= 5."""

    def apply(params, x):
        return network.apply(params, x, "mlp")

    def loss(params, batch):
        return jnp.mean(jnp.square(apply(params, batch[0]) - batch[1]))

    def draw(key, kind):
        keys = jax.random.split(key, 4)
        height = jax.random.uniform(keys[0], minval=0.1, maxval=5.0)
        phase = jax.random.uniform(keys[1], maxval=math.pi)

        def some(key, count):
            x = jax.random.uniform(key, (count, 1), minval=-5.0, maxval=5.0)
            return x, height * jnp.sin(x - phase)

        count = QUERY if kind == "new" else flags.shots
        return some(keys[2], flags.shots), some(keys[3], count)

    def init(key):
        """Weights and biases uniform up to 1 / sqrt(inputs): for x up to 5 the loss is
        then so little curved (33, with He's normal weights 1300) that steps at 0.01
        descend, which they do below 2 / 0.01."""
        params = network.init(key, "mlp", (1,), flags.width, 1)
        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(key, len(leaves))
        most = [len(w) ** -0.5 for w, b in params for _ in (w, b)]
        drawn = [
            jax.random.uniform(k, leaf.shape, minval=-m, maxval=m)
            for k, leaf, m in zip(keys, leaves, most, strict=True)
        ]
        return jax.tree.unflatten(structure, drawn)

    def joint_loss(params, key):
        keys = jax.random.split(key, flags.meta_batch)
        _, query = jax.vmap(partial(draw, kind="training"))(keys)
        return jnp.mean(jax.vmap(loss, (None, 0))(params, query))

    joint = init, joint_loss, lambda params: params
    rest = flags.rate, flags.steps, flags.iterations, False
    return Problem(init, apply, loss, loss, draw, *joint, *rest)


def digits(flags: Maml) -> Problem:
    """Which of a few classes, from an image or a few of each. While training, a digit
    turned or mirrored is another class, as letters turned are in the paper; new ones
    are upright, and rates are chosen on those same digits otherwise turned."""
    data = sets.load("digits")
    upright = np.stack([data.images[data.labels == k] for k in range(data.classes)])
    upright = upright.reshape(*upright.shape[:2], *data.images.shape[1:3])
    turned = [np.rot90(upright, k, (2, 3)) for k in range(4)]
    turned += [np.swapaxes(images, 2, 3) for images in turned]
    classes = np.stack(turned, axis=1)  # [digits, turns, images, 8, 8]
    classes = jnp.asarray(classes.reshape(*classes.shape[:3], -1))
    turns, pixels = classes.shape[1], classes.shape[-1]
    ranges = {"training": (0, turns), "choice": (1, turns), "new": (0, 1)}

    def apply(params, x):
        return network.apply(params, x, "mlp")

    def loss(params, batch):
        z = apply(params, batch[0])
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(z, batch[1]))

    def measure(params, batch):
        right = jnp.argmax(apply(params, batch[0]), axis=-1) == batch[1]
        return jnp.mean(right.astype(jnp.float32))

    def draw(key, kind):
        """Of digits that are no two alike, each turned by chance."""
        from_ = classes[:TRAINING] if kind == "training" else classes[TRAINING:]
        by_way, by_turn, by_image = jax.random.split(key, 3)
        ways = jax.random.permutation(by_way, len(from_))[: flags.ways]
        how = jax.random.randint(by_turn, (flags.ways,), *ranges[kind])
        count = flags.digits_shots + HELD
        keys = jax.random.split(by_image, flags.ways)
        rows = [jax.random.permutation(k, from_.shape[2])[:count] for k in keys]
        chosen = zip(ways, how, rows, strict=True)
        images = jnp.stack([from_[digit, turn][of] for digit, turn, of in chosen])

        def part(images):
            labels = jnp.repeat(jnp.arange(flags.ways), images.shape[1])
            return images.reshape(-1, images.shape[-1]), labels

        shown = flags.digits_shots
        return part(images[:, :shown]), part(images[:, shown:])

    def init(key, classes=flags.ways):
        return network.init(key, "mlp", (pixels,), flags.width, classes)

    def joint_loss(params, key):
        """Of telling all classes of training apart: a task's labels mean nothing."""
        count, each = flags.meta_batch * flags.ways * HELD, classes.shape[2]
        rows = jax.random.randint(key, (count,), 0, TRAINING * turns * each)
        images = classes[:TRAINING].reshape(-1, pixels)[rows]
        return loss(params, (images, rows // each))

    def joint_end(params):
        """A new last layer, of zeros."""
        *hidden, (w, b) = params
        return [*hidden, (jnp.zeros_like(w[:, : flags.ways]), 0 * b[: flags.ways])]

    first = partial(init, classes=TRAINING * turns)
    joint = first, joint_loss, joint_end
    rest = flags.digits_rate, flags.digits_steps, flags.digits_iterations, True
    return Problem(init, apply, loss, measure, draw, *joint, *rest)
