"""What is trained on, what is chosen by, and what is measured on."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..small import sets
from .config import Mgd


class Split(NamedTuple):
    """A third of each class that is held out is to choose by, the rest is the test."""

    data: sets.Images
    valid: tuple[Array, Array]  # f32[v, h, w, c], i32[v]; their labels are right
    test: tuple[Array, Array]


class Lane(NamedTuple):
    """A seed's; leaves [seeds, ...] side by side."""

    images: Array  # f32[n, h, w, c]
    labels: Array  # i32[n], some of them wrong
    true: Array  # i32[n]
    seed: Array  # i32[]

    @property
    def right(self) -> Array:
        return self.labels == self.true


def load() -> Split:
    data = sets.load("digits")
    first = np.zeros(len(data.held_out), bool)
    for k in range(data.classes):
        of = np.flatnonzero(data.held_out_labels == k)
        first[of[: len(of) // 3]] = True

    def part(rows):
        labels = data.held_out_labels[rows].astype(np.int32)
        return jnp.asarray(data.held_out[rows]), jnp.asarray(labels)

    return Split(data, part(first), part(~first))


def planted(labels: np.ndarray, flags: Mgd) -> np.ndarray:
    """Of every even digit so many are labelled as the next one: where it is most of
    them, a model of all images believes the wrong ones."""
    labels = labels.copy()
    for s, of in enumerate(labels):
        rng = np.random.default_rng([flags.seed, s, 2])
        for k in range(0, 10, 2):
            rows = rng.permutation(np.flatnonzero(of == k))
            of[rows[: round(flags.planted * len(rows))]] = -k - 1
        of[of < 0] *= -1
    return labels


def lanes(split: Split, flags: Mgd, setting: str) -> Lane:
    data = split.data
    sizes = np.full(data.classes, flags.per_class)
    noise = 0.0 if setting == "planted" else float(setting)
    drawn = sets.draw(data, sizes, noise=noise, seeds=flags.seeds, seed=flags.seed)
    true = data.labels[drawn.index].astype(np.int32)
    if setting == "planted":
        drawn = drawn._replace(labels=planted(drawn.labels, flags))
    seeds = flags.seed + np.arange(flags.seeds, dtype=np.int32)
    return Lane(
        jnp.asarray(data.images[drawn.index]),
        jnp.asarray(drawn.labels),
        jnp.asarray(true),
        jnp.asarray(seeds),
    )
