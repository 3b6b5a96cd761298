"""Predictors that are as good as a Bayesian mixture, and how to tell: regret.

A sequence model trained by log loss on what sources make predicts like the mixture over
the sources. For binary sources of variable order that is context tree weighting.

Source: Grau-Moya et al., "Learning Universal Predictors", 2024, arXiv:2401.14953.
Differs: sources of variable order alone, no universal Turing machine; a small model.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from . import in_context_tuning as tuning

DEPTH, LENGTH = 3, 100


def kt(zeros: int, ones: int) -> float:
    """log of such a string's probability under Beta(1/2, 1/2): Krichevsky, Trofimov."""
    lgamma = math.lgamma
    above = lgamma(zeros + 0.5) + lgamma(ones + 0.5) - 2 * lgamma(0.5)
    return above - lgamma(zeros + ones + 1)


def ctw(bits: np.ndarray, depth: int) -> float:
    """log of the mixture's probability of bits[depth:], given the first `depth`."""
    counts: dict[tuple, list[int]] = {}
    for t in range(depth, len(bits)):
        for d in range(depth + 1):
            context = tuple(bits[t - d : t][::-1])
            counts.setdefault(context, [0, 0])[bits[t]] += 1

    def weighted(context):
        if context not in counts:
            return 0.0
        own = kt(*counts[context])
        if len(context) == depth:
            return own
        below = sum(weighted((*context, b)) for b in (0, 1))
        return np.logaddexp(own, below) - math.log(2)

    return float(weighted(()))


def string(key: Key[Array, ""]) -> tuple[Int[Array, " bits"], Float[Array, ""]]:
    """DEPTH free bits and LENGTH of a random context tree, and the log of the latter's
    probability under it. Each node of the tree is split with probability 1/2."""
    by_start, by_bits, *by_level = jax.random.split(key, 3 + DEPTH)
    levels = []
    for d, key in enumerate(by_level):  # nodes by the last d bits, the newest lowest
        split, odds = jax.random.split(key)
        leaf = jax.random.bernoulli(split, 0.5, (2**d,)) | (d == DEPTH)
        angle = jax.random.uniform(odds, (2**d,), maxval=jnp.pi / 2)
        levels.append((leaf, jnp.sin(angle) ** 2))  # Beta(1/2, 1/2)
    every = jnp.arange(2**DEPTH)
    chance = jnp.zeros(2**DEPTH)
    for d, (leaf, odds) in reversed(list(enumerate(levels))):
        chance = jnp.where(leaf[every % 2**d], odds[every % 2**d], chance)

    def step(past, key):
        one = chance[past]
        bit = jax.random.bernoulli(key, one)
        said = jnp.log(jnp.where(bit, one, 1 - one))
        return (2 * past + bit) % 2**DEPTH, (bit, said)

    first = jax.random.randint(by_start, (), 0, 2**DEPTH)
    _, (bits, said) = jax.lax.scan(step, first, jax.random.split(by_bits, LENGTH))
    free = (first >> jnp.arange(DEPTH)[::-1]) & 1
    return jnp.concatenate([free, bits.astype(free.dtype)]), jnp.sum(said)


def log_loss(params: PyTree, bits: Int[Array, " bits"]) -> Float[Array, ""]:
    """Of a small transformer, in nats, after the free bits."""
    logits = tuning.model(params, bits[:-1])[:, :2]
    each = optax.softmax_cross_entropy_with_integer_labels(logits, bits[1:])
    return jnp.sum(each[DEPTH - 1 :])


def learn(params: PyTree, rounds: int, batch: int = 32) -> PyTree:
    """By the log loss of what new sources make."""
    tx = optax.adam(optax.cosine_decay_schedule(2e-3, rounds))

    def loss(params, key):
        bits, _ = jax.vmap(string)(jax.random.split(key, batch))
        return jnp.mean(jax.vmap(partial(log_loss, params))(bits))

    def step(carry, key):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, key), state)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.key(1), rounds)
    return jax.lax.scan(step, (params, tx.init(params)), keys)[0][0]


def markov(bits: np.ndarray, depth: int, order: int) -> float:
    """log probability by counts of one fixed order: what CTW needs not be told."""
    counts: dict[tuple, list[int]] = {}
    for t in range(depth, len(bits)):
        counts.setdefault(tuple(bits[t - order : t]), [0, 0])[bits[t]] += 1
    return sum(kt(*pair) for pair in counts.values())


def run(quick: bool = False) -> dict[str, float]:
    """Regret to the source in nats a string, less is better: of the mixture, which is
    the least, of a model before and after learning, and of counts of fixed orders. So
    short a learning ends between counts of order 0 and of order 1."""
    rounds, count = (50, 20) if quick else (1500, 300)
    first = tuning.start(jax.random.key(0), DEPTH + LENGTH)
    learnt = jax.jit(partial(learn, rounds=rounds))(first)
    test = jax.random.split(jax.random.key(2), count)
    bits, truth = jax.jit(jax.vmap(string))(test)
    said = jax.jit(jax.vmap(log_loss, (None, 0)))
    regrets = {
        "untrained": truth + said(first, bits),
        "learnt": truth + said(learnt, bits),
    }
    strings, truth = np.asarray(bits), np.asarray(truth)
    regrets["ctw"] = truth - [ctw(one, DEPTH) for one in strings]
    for order in range(DEPTH + 1):
        counted = [markov(one, DEPTH, order) for one in strings]
        regrets[f"order {order}"] = truth - counted
    return {name: float(np.mean(of)) for name, of in regrets.items()}
