"""STORM: losses rescaled by a network that learns from the noisy data itself.

Each example is told by statistics of its loss and confidence over several dropout
passes, and by how they stand among those of recent examples of its label. A small
network makes of them a weight; it learns, through one step of training, from the loss
of other noisy examples that it weighs as well.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key, PyTree

from .. import _safe as safe
from .._mask import at_label, at_least_f32
from ._storm_features import StormMemory, storm_features, storm_memory

FEATURES = 19


class StormRescaler(NamedTuple):
    """The network that makes weights of features; one for each label."""

    inner: Float[Array, "labels 19 19"]
    inner_bias: Float[Array, "labels 19"]
    outer: Float[Array, "labels 19 2"]
    outer_bias: Float[Array, "labels 2"]


class StormState(NamedTuple):
    """State of `storm`."""

    params: PyTree
    opt: PyTree
    rescaler: StormRescaler
    meta_opt: PyTree
    memory: StormMemory  # of the examples trained on
    other_memory: StormMemory  # of those of the meta loss


class Storm(NamedTuple):
    """What `storm` gives."""

    init: Callable[..., StormState]
    step: Callable[..., tuple[StormState, tuple[Float[Array, " n"], Float[Array, ""]]]]


def storm_weights(
    rescaler: StormRescaler,
    features: Float[ArrayLike, "n 19"],
    labels: Int[ArrayLike, " n"],
) -> Float[Array, " n"]:
    """The weights that STORM's rescaler gives to examples. Batch-coupled.

    softmax(norm(W' relu(norm(W features + b)) + b'))_1,   W of the example's label

    norm is batch normalisation without parameters, over the whole batch.

    Args:
      rescaler: StormRescaler; one label's serves all labels.
      features: float[n, 19], of `storm_features`.
      labels: int[n]; out of range gives NaN, if there are several rescalers.
    Returns:
      f32[n] in (0, 1); 0.5 where all features are equal.
    Gradient: in the rescaler and the features.
    Cost: every label's network on the whole batch.
    Source: Heck et al., "Learning from Noisy Labels via Self-Taught On-the-Fly Meta
      Loss Rescaling", 2024, arXiv:2412.12955. Differs: none.
    Example:
      >>> ones = StormRescaler(*(jnp.ones((1, *s)) for s in [(19, 19), (19,)]),
      ...                      *(jnp.ones((1, *s)) for s in [(19, 2), (2,)]))
      >>> storm_weights(ones, jnp.ones((2, 19)), jnp.zeros(2, int))
      Array([0.5, 0.5], dtype=float32)
    """
    features, labels = at_least_f32(features), jnp.asarray(labels)

    def of_label(rescaler):
        hidden = features @ rescaler.inner + rescaler.inner_bias[None]
        hidden = jax.nn.relu(_normalized(hidden))
        out = hidden @ rescaler.outer + rescaler.outer_bias[None]
        return jax.nn.softmax(_normalized(out))[:, 1]

    weights = jax.vmap(of_label)(rescaler)
    if len(weights) == 1:
        return weights[0]
    return at_label(weights.T, labels)


def preserve_sum(
    losses: Float[ArrayLike, " n"], weights: Float[ArrayLike, " n"]
) -> Float[Array, " n"]:
    """Rescaled losses whose sum is that of the losses. Batch-coupled.

    w_i l_i  c,   c = sum_j l_j / sum_j w_j l_j held constant

    Args:
      losses: float[n], >= 0.
      weights: float[n], >= 0; equal ones change nothing.
    Returns:
      f32[n].
    Gradient: in losses and weights with the factor constant: with it, the sum of all
      would have the gradient of unweighted losses, and none in the weights.
    Cost: none to speak of.
    Source: Heck et al., "Learning from Noisy Labels via Self-Taught On-the-Fly Meta
      Loss Rescaling", 2024, arXiv:2412.12955. Differs: the authors' code
      differentiates the factor, and so the weights cancel.
    Example:
      >>> preserve_sum(jnp.array([1.0, 2.0]), jnp.array([0.2, 0.4]))
      Array([0.6, 2.4], dtype=float32)
    """
    losses, weights = at_least_f32(losses), at_least_f32(weights)
    rescaled = weights * losses
    factor = safe.divide(jnp.sum(losses), jnp.sum(rescaled))
    return rescaled * lax.stop_gradient(factor)


def storm(
    forward: Callable[
        [PyTree, PyTree, Key[Array, ""]], tuple[Float[Array, "r n"], Array, Array]
    ],
    tx: optax.GradientTransformation,
    meta_tx: optax.GradientTransformation,
    *,
    labels: int,
    recent: int,
    scale: float = 1.0,
    preserve: bool = False,
) -> Storm:
    """Trains on noisy labels with losses rescaled by what it learns on its way.

    params:   u = params - tx(d sum w l/d params),   w = weights of the batch
    rescaler: -= meta_tx(d sum w' l'/d rescaler)     of another batch, at u(rescaler)

    Needs no clean data: the other batch is as noisy, and weighed alike. The rescaler
    is told twice: to weigh little what loses much, and to weigh what helps others.

    Args:
      forward: (params, batch, key) -> (losses [passes, n], logits [passes, n, classes],
        labels [n]); the first pass is trained on, others (two, in the authors' code)
        draw dropout anew.
      tx: optimizer of params.
      meta_tx: of the rescaler.
      labels: how many labels have a rescaler and a memory of their own; 1 for one.
      recent: examples of a label that are remembered; a batch's size, in their code.
      scale: of the rescaler's first weights, uniform in +-scale / sqrt(19).
      preserve: whether the losses of u and of the rescaler go through `preserve_sum`;
        u is then a look ahead alone, and params take the step without it.
    Returns:
      Storm(init, step). init(params, key). step(state, (batch, other, key)) gives
      (state, (the weights f32[n], the meta loss f32[])); it is a step for `scan`.
    Gradient: of the steps, where that is wanted.
    Cost: three forward passes and two backward ones, one of them through the step;
      another of each to preserve sums.
    Raises: ValueError for labels < 1 or recent < 1.
    Source: Heck et al., "Learning from Noisy Labels via Self-Taught On-the-Fly Meta
      Loss Rescaling", 2024, arXiv:2412.12955, alg. 1; preserve is the authors' program
      for dialogues (see `preserve_sum`). Differs: in their programs u is the first step
      of an Adam begun anew, and an epoch begins with empty memories.
    Example:
      >>> def forward(w, batch, key):  # logistic regression, without dropout
      ...     logits = jnp.outer(batch, w)
      ...     losses = -jax.nn.log_softmax(logits)[:, 0]
      ...     return losses[None], logits[None], jnp.zeros(4, int)
      >>> tuner = storm(forward, optax.sgd(0.1), optax.sgd(0.1), labels=1, recent=4)
      >>> state = tuner.init(jnp.array([0.1, -0.1]), jax.random.key(0))
      >>> data = jnp.arange(4.0), jnp.ones(4), jax.random.key(1)
      >>> state, (weights, meta_loss) = jax.jit(tuner.step)(state, data)
      >>> print(meta_loss)
      1.0990
    """

    def init(params, key):
        memory = storm_memory(labels=labels, recent=recent)
        shapes = (FEATURES, FEATURES), (FEATURES,), (FEATURES, 2), (2,)
        bound = scale / FEATURES**0.5
        rescaler = StormRescaler(
            *(
                jax.random.uniform(k, (labels, *shape), minval=-bound, maxval=bound)
                for k, shape in zip(jax.random.split(key, 4), shapes, strict=True)
            )
        )
        opts = tx.init(params), meta_tx.init(rescaler)
        return StormState(params, opts[0], rescaler, opts[1], memory, memory)

    def step(state, data):
        batch, other, key = data
        keys = jax.random.split(key)

        def seen(params, batch, key, memory):
            losses, logits, labels = forward(params, batch, key)
            features, memory = storm_features(losses, logits, labels, memory)
            return losses[0], features, labels, memory

        _, features, labels, memory = seen(state.params, batch, keys[0], state.memory)

        def loss(params, weights, reweigh):
            losses = forward(params, batch, keys[0])[0][0]
            return jnp.sum(reweigh(at_least_f32(losses), weights))

        def descended(weights, reweigh):
            grads = jax.grad(loss)(state.params, weights, reweigh)
            updates, opt = tx.update(grads, state.opt, state.params)
            return optax.apply_updates(state.params, updates), opt

        reweigh = preserve_sum if preserve else jnp.multiply

        def meta_loss(rescaler):
            weights = storm_weights(rescaler, features, labels)
            after = descended(weights, reweigh)
            theirs = seen(after[0], other, keys[1], state.other_memory)
            losses, others, their_labels, memory = theirs
            their_weights = storm_weights(rescaler, others, their_labels)
            total = jnp.sum(reweigh(at_least_f32(losses), their_weights))
            return total, (weights, memory, after)

        by = jax.value_and_grad(meta_loss, has_aux=True)
        (meta, (weights, other_memory, after)), grads = by(state.rescaler)
        updates, meta_opt = meta_tx.update(grads, state.meta_opt, state.rescaler)
        moved = optax.apply_updates(state.rescaler, updates)
        rescaler = StormRescaler(*jax.tree.leaves(moved))
        if preserve:
            after = descended(lax.stop_gradient(weights), jnp.multiply)
        params, opt = after
        new = StormState(params, opt, rescaler, meta_opt, memory, other_memory)
        return new, (weights, meta)

    return Storm(init, step)


def _normalized(x: Float[Array, "n d"]) -> Array:
    """Batch normalisation without parameters."""
    centred = x - jnp.mean(x, axis=0, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=0, keepdims=True)
    return centred * lax.rsqrt(variance + 1e-5)
