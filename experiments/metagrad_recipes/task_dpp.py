"""Diverse batches of tasks: a determinantal process over their embeddings.

p(S) ~ det(phi_S phi_S') for |S| = k, against k tasks drawn uniformly.

Source: "Exploring intra-task relations to improve meta-learning algorithms". Differs:
which embedding and kernel the paper takes could not be read; here the embedding is the
mean of a task's support set, and both a sample and the greedy set are given.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from jaxtricks import metagrad


def elementary(values: Float[Array, " n"], k: int) -> Float[Array, "n+1 k+1"]:
    """e_j of the first m values, for every m and j <= k."""

    def step(row, value):
        row = row.at[1:].add(value * row[:-1])
        return row, row

    first = jnp.zeros(k + 1).at[0].set(1.0)
    return jnp.concatenate([first[None], jax.lax.scan(step, first, values)[1]])


def k_dpp(kernel: Float[Array, "n n"], k: int, *, key: Key[Array, ""]) -> Array:
    """k indices, no two alike, with p(S) ~ det(kernel_S)."""
    n = len(kernel)
    values, vectors = jnp.linalg.eigh(kernel)
    values = jnp.maximum(values, 0)
    table = elementary(values, k)
    by_vector, by_item = jax.random.split(key)
    drawn = jax.random.uniform(by_vector, (n,))

    def choose(left, m):  # from the last eigenvector to the first
        odds = values[m] * table[m, jnp.maximum(left - 1, 0)]
        take = (left > 0) & (drawn[m] * table[m + 1, left] < odds)
        return left - take, take

    _, taken = jax.lax.scan(choose, jnp.int32(k), jnp.arange(n), reverse=True)
    basis = jnp.where(taken[None], vectors, 0)

    def pick(basis, key):
        weight = jnp.sum(basis**2, axis=1)
        item = jax.random.categorical(key, jnp.log(jnp.maximum(weight, 1e-12)))
        row = basis[item]  # what is left of the span is orthogonal to the item
        along = basis @ row / jnp.maximum(row @ row, 1e-12)
        rest = basis - along[:, None] * row[None]
        return rest, item

    return jax.lax.scan(pick, basis, jax.random.split(by_item, k))[1]


def greedy(kernel: Float[Array, "n n"], k: int) -> Bool[Array, " n"]:
    """The set that grows by the largest determinant, as a mask."""

    def step(carry, _):
        left, chosen = carry
        item = jnp.argmax(jnp.where(chosen, -jnp.inf, jnp.diag(left)))
        column = left[:, item]
        left = left - jnp.outer(column, column) / jnp.maximum(left[item, item], 1e-12)
        return (left, chosen.at[item].set(True)), None

    init = kernel, jnp.zeros(len(kernel), bool)
    return jax.lax.scan(step, init, length=k)[0][1]


def enumerated(kernel: np.ndarray, k: int) -> dict[tuple[int, ...], float]:
    """Every set's probability, by determinants."""
    sets = list(itertools.combinations(range(len(kernel)), k))
    sizes = np.array([np.linalg.det(kernel[np.ix_(s, s)]) for s in sets])
    return dict(zip(sets, sizes / sizes.sum(), strict=True))


def run(quick: bool = False) -> dict[str, float]:
    """Of batches of three tasks, of three kinds of 12, 4 and 2: how much the MAML
    gradient varies, how far its mean is from that of all tasks (diversity favours the
    rare kinds), and how many kinds a batch has."""
    rng = np.random.default_rng(0)
    groups = np.repeat([[3.0, 0, 0], [0, 3, 0], [0, 0, 3]], (12, 4, 2), axis=0)
    centres = jnp.asarray(groups + 0.3 * rng.normal(size=(18, 3)), jnp.float32)
    kernel = centres @ centres.T + 1e-3 * jnp.eye(18)
    repeats = 100 if quick else 1000

    def gradient(items):
        tasks = centres[items], centres[items]
        loss = lambda w, c: jnp.sum((w - c) ** 2) / 2  # noqa: E731
        return jax.grad(metagrad.maml, argnums=1)(loss, jnp.zeros(3), tasks, rate=0.1)

    keys = jax.random.split(jax.random.key(0), repeats)
    diverse = jax.jit(jax.vmap(lambda key: k_dpp(kernel, 3, key=key)))(keys)
    plain = jax.vmap(lambda key: jax.random.permutation(key, 18)[:3])(keys)
    every, spread = gradient(jnp.arange(18)), {}
    for name, items in {"uniform": plain, "dpp": diverse}.items():
        found = jax.jit(jax.vmap(gradient))(items)
        apart = jnp.sum(jnp.square(jnp.mean(found, axis=0) - every))
        kinds = np.array([0] * 12 + [1] * 4 + [2] * 2)[np.asarray(items)]
        spread[f"{name}: variance"] = float(jnp.sum(jnp.var(found, axis=0)))
        spread[f"{name}: squared bias"] = float(apart)
        spread[f"{name}: kinds"] = float(np.mean([len(set(row)) for row in kinds]))
    return spread
