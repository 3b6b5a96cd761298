"""A forward pass as descent on its tokens: norms by layer, and steps against gradients.

Of the residual stream's states h_0, h_1, ...: the mean and deviation of their norms,
those of h_{l+1} - h_l, and the cosine of that with the loss's gradient in h_l, which is
-1 for a layer that is a step of gradient descent.

Source: Wu and Varshney, "A Meta-Learning Perspective on Transformers for Causal
Language Modeling", 2023, arXiv:2310.05884. Differs: the paper's statement about norms
could not be read; these are measurements.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from . import in_context_tuning as tuning


class TokenNorms(NamedTuple):
    """Of every layer; the cosine is 0 where either is 0."""

    mean: Float[Array, " layers+1"]
    deviation: Float[Array, " layers+1"]
    update: Float[Array, " layers"]
    cosine: Float[Array, " layers"]


def token_norms(
    layers: list[Callable[[Array], Array]],
    loss: Callable[[Array], Array],
    tokens: Float[Array, "n d"],
) -> TokenNorms:
    """Layers are functions of the whole stream; loss is of the last state."""
    states = [tokens]
    for layer in layers:
        states.append(layer(states[-1]))

    def rest(start):
        def f(x):
            for layer in layers[start:]:
                x = layer(x)
            return loss(x)

        return f

    grads = [jax.grad(rest(i))(x) for i, x in enumerate(states[:-1])]
    steps = [b - a for a, b in itertools.pairwise(states)]

    def cosine(a, b):
        lengths = jnp.sqrt(jnp.sum(a**2, axis=-1) * jnp.sum(b**2, axis=-1))
        inner = jnp.sum(a * b, axis=-1) / jnp.where(lengths > 0, lengths, 1)
        live = lengths > 0
        return jnp.sum(jnp.where(live, inner, 0)) / jnp.maximum(jnp.sum(live), 1)

    norms = [jnp.linalg.norm(x, axis=-1) for x in states]
    return TokenNorms(
        jnp.stack([jnp.mean(n) for n in norms]),
        jnp.stack([jnp.std(n) for n in norms]),
        jnp.stack([jnp.mean(jnp.linalg.norm(s, axis=-1)) for s in steps]),
        jnp.stack([cosine(s, g) for s, g in zip(steps, grads, strict=True)]),
    )


def measured(params, tokens, label) -> TokenNorms:
    """Of the small transformer of `in_context_tuning`, one sequence."""

    def loss(x):
        logits = jax.nn.standardize(x[-1]) @ params["read"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, label)

    first = params["embed"][tokens] + params["place"][: len(tokens)]
    layers = [partial(tuning.layer, weights) for weights in params["layers"]]
    return token_norms(layers, loss, first)


def run(quick: bool = False) -> dict[str, float]:
    """Mean norms after each layer and cosines of each, -1 for a step of descent, of a
    transformer of three layers: untrained, and tuned in context."""
    shots, rounds, count = 8, *((20, 8) if quick else (2000, 200))
    first = tuning.start(jax.random.key(0), 1 + 3 * shots + 2, layers=3)
    tuned = jax.jit(tuning.learn, static_argnums=(1, 2))(first, shots, rounds)
    tokens, _, label = tuning.draw(jax.random.key(3), count, shots)
    each = jax.jit(jax.vmap(measured, (None, 0, 0)))
    found = {}
    for name, params in {"untrained": first, "tuned": tuned}.items():
        norms = jax.tree.map(lambda x: jnp.mean(x, axis=0), each(params, tokens, label))
        found |= {f"{name}: norm {i}": float(x) for i, x in enumerate(norms.mean)}
        found |= {f"{name}: cosine {i}": float(x) for i, x in enumerate(norms.cosine)}
    return found
