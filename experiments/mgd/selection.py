"""Which images to train on: every method gives a score, and the best part is kept.

Functions of one seed, run side by side by `vmap`; what is long is compiled once, for
all methods and settings.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, ScalarLike

from jaxtricks import metagrad

from ..small import smooth
from .config import METHODS, Mgd
from .data import Lane, Split
from .training import ACTIVATION, adam, mean_loss, order, start, train

Score = Callable[[Lane], Float[Array, " n"]]


def methods(flags: Mgd, split: Split) -> dict[str, Score]:
    """Scores of a lane's images; the highest are kept."""
    found = {
        "corrected": lambda lane: jnp.zeros(len(lane.labels)),
        "all": lambda lane: jnp.zeros(len(lane.labels)),
        "random": lambda lane: jax.random.uniform(key(lane, 3), lane.labels.shape),
        "loss": partial(by_loss, flags),
        "held-out loss": lambda lane: by_loss(flags, lane, split.valid),
        "mgd": lambda lane: by_mgd(flags, flags.p, lane, split.valid),
        "right labels": lambda lane: (
            lane.right + jax.random.uniform(key(lane, 3), lane.labels.shape)
        ),
    }
    return {name: found[name] for name in METHODS}


def key(lane: Lane, n: int) -> Array:
    return jax.random.fold_in(jax.random.key(lane.seed), n)


def by_loss(flags: Mgd, lane: Lane, of=None) -> Float[Array, " n"]:
    """Low loss is good, under a model of all the images, or of other ones."""
    images, labels = of or (lane.images, lane.labels)
    params = trained(flags, images, labels, jnp.arange(len(labels)), key(lane, 4))
    return -smooth.each(params, lane.images, lane.labels, ACTIVATION)


@partial(jax.jit, static_argnums=0)
def by_mgd(
    flags: Mgd, p: ScalarLike, lane: Lane, valid: tuple[Array, Array]
) -> Float[Array, " n"]:
    """Counts, by the sign of what more of each would do to the validation loss; among
    equal counts the mean of that. Every round begins from other parameters, in another
    order, and trains on the counts that the last one left."""
    n = len(lane.labels)
    places = (jnp.arange(1, flags.relaxed + 1) * flags.updates) // (flags.relaxed + 1)

    def each(params, rows=None):
        at = slice(None) if rows is None else rows
        return smooth.each(params, lane.images[at], lane.labels[at], ACTIVATION)

    def outcome(z, counts, key):
        def loss(params, rows):
            return jnp.mean(counts[rows] * each(params, rows))

        relaxed = metagrad.relax_counts(
            loss, lambda params: each(params) / flags.batch_size, at=places
        )
        a, b = jax.random.split(key)
        params = start(a, lane.images, flags.width)
        rows = order(b, n, flags.updates, flags.batch_size)
        tx = adam(flags.rate, flags.updates)
        params = train(tx, params, lambda p, r, t: relaxed(p, r, t, z), rows)
        return mean_loss(params, valid)

    def round_(carry, key):
        counts, sums = carry
        a, b = jax.random.split(key)
        grads = jax.grad(outcome)(jnp.zeros(n), counts, a)
        counts = metagrad.mgd(counts, grads, p=p, key=b, low=0.0, high=1.0)
        scale = jnp.sqrt(jnp.mean(jnp.square(grads))) + 1e-30
        return (counts, sums - grads / scale), None

    keys = jax.random.split(key(lane, 5), flags.rounds)
    (counts, sums), _ = jax.lax.scan(round_, (jnp.ones(n), jnp.zeros(n)), keys)
    return counts + 0.5 * jnp.tanh(sums / flags.rounds)


@partial(jax.jit, static_argnums=0)
def trained(flags: Mgd, images, labels, kept: Int[Array, " m"], key):
    """Parameters after training on the images that are kept."""
    a, b = jax.random.split(key)
    rows = kept[order(b, len(kept), flags.updates, flags.batch_size)]

    def loss(params, rows, t):
        del t
        return jnp.mean(smooth.each(params, images[rows], labels[rows], ACTIVATION))

    tx = adam(flags.rate, flags.updates)
    return train(tx, start(a, images, flags.width), loss, rows)


def measured(name: str, flags: Mgd, split: Split, lane: Lane) -> dict[str, Array]:
    """Test accuracy and loss, and which part of the kept labels is right."""
    n = len(lane.labels)
    if name == "corrected":
        lane = lane._replace(labels=lane.true)
    scores = methods(flags, split)[name](lane)
    size = n if name in ("corrected", "all") else round(flags.keep * n)
    kept = jnp.argsort(-scores)[:size]
    # The same start for every method.
    params = trained(flags, lane.images, lane.labels, kept, key(lane, 6))
    return {
        "accuracy": smooth.accuracy(params, *split.test, ACTIVATION),
        "loss": mean_loss(params, split.test),
        "right": jnp.mean(lane.right[kept].astype(jnp.float32)),
    }
