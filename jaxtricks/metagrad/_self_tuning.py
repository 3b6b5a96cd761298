"""Self-tuning networks: hyperparameters tuned in one run, by a learned best response.

The weights are a function of the hyperparameters, trained on hyperparameters drawn
around the present ones; the validation loss is then differentiated through it, with no
training unrolled.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key, PyTree, ScalarLike

from .. import _safe as safe
from .._check import at_least
from .._mask import at_least_f32


class BestResponse(NamedTuple):
    """Parameters of `best_response_linear`; gates of 0 make it an ordinary layer."""

    weight: Float[Array, "d out"]
    bias: Float[Array, " out"]
    response_weight: Float[Array, "d out"]
    response_bias: Float[Array, " out"]
    weight_gate: Float[Array, "h out"]
    bias_gate: Float[Array, "h out"]
    scale: Float[Array, ""] | float = 1.0


class StnState(NamedTuple):
    """State of `stn`."""

    params: PyTree
    hyper: Float[Array, " h"]  # where the hyperparameters are, unconstrained
    scale: Float[Array, " h"]  # softplus of it is how far they are perturbed
    opt: PyTree
    hyper_opt: PyTree


class Stn(NamedTuple):
    """What `stn` gives."""

    init: Callable[..., StnState]
    step: Callable[..., tuple[StnState, tuple[Float[Array, ""], Float[Array, ""]]]]


def best_response_linear(
    x: Float[ArrayLike, "*batch d"],
    hyper: Float[ArrayLike, "*batch h"],
    params: BestResponse,
) -> Float[Array, "*batch out"]:
    """A linear layer whose weights are a function of the hyperparameters.

    y = c (x W + b) + (hyper V) * (x W') + (hyper C) * b'

    Args:
      x: float[*batch, d].
      hyper: float[*batch, h], unconstrained; an example may have its own.
      params: BestResponse(W, b, W', b', V, C, c).
    Returns:
      float[*batch, out]; c (x W + b) where hyper is 0.
    Gradient: smooth in everything.
    Cost: two linear layers and two of [h, out].
    Source: MacKay et al., "Self-Tuning Networks: Bilevel Optimization of
      Hyperparameters using Structured Best-Response Functions", 2019, arXiv:1903.03088.
      Differs: the scale c is that of the authors' code.
    Example:
      >>> one = jnp.ones((1, 1))
      >>> layer = BestResponse(one, one[0], one, one[0], 2 * one, 3 * one)
      >>> best_response_linear(jnp.array([[5.0]]), jnp.array([[0.1]]), layer)
      Array([[7.3]], dtype=float32)
    """
    x, hyper = jnp.asarray(x), jnp.asarray(hyper)
    plain = params.scale * (x @ params.weight + _wide(params.bias, x))
    gated = (hyper @ params.weight_gate) * (x @ params.response_weight)
    return plain + gated + (hyper @ params.bias_gate) * _wide(params.response_bias, x)


def perturb_hyper(
    hyper: Float[ArrayLike, " h"],
    scale: Float[ArrayLike, " h"],
    *,
    key: Key[Array, ""],
    examples: int,
) -> Float[Array, "examples h"]:
    """Hyperparameters around the present ones, one draw an example.

    hyper + softplus(scale) e,   e ~ N(0, I)

    Args:
      hyper: float[h], unconstrained.
      scale: float[h]; softplus of it is the standard deviation.
      key: what is drawn from.
      examples: how many.
    Returns:
      float[examples, h].
    Gradient: in hyper and scale, through the draw.
    Cost: none to speak of.
    Source: MacKay et al., "Self-Tuning Networks: Bilevel Optimization of
      Hyperparameters using Structured Best-Response Functions", 2019, arXiv:1903.03088.
      Differs: none.
    Example:
      >>> key = jax.random.key(0)
      >>> perturb_hyper(jnp.ones(1), -99 * jnp.ones(1), key=key, examples=2)
      Array([[1.],
             [1.]], dtype=float32)
    """
    hyper, scale = jnp.asarray(hyper), jnp.asarray(scale)
    noise = jax.random.normal(key, (examples, *hyper.shape), hyper.dtype)
    return hyper[None] + jax.nn.softplus(scale)[None] * noise


def perturbation_entropy(scale: Float[ArrayLike, " h"]) -> Float[Array, ""]:
    """The entropy of `perturb_hyper`, whose reward keeps the perturbations wide.

    sum log(softplus(scale) sqrt(2 pi e))

    Args:
      scale: float[h].
    Returns:
      f32[].
    Gradient: smooth.
    Cost: none to speak of.
    Source: MacKay et al., "Self-Tuning Networks: Bilevel Optimization of
      Hyperparameters using Structured Best-Response Functions", 2019, arXiv:1903.03088.
      Differs: none.
    Example:
      >>> perturbation_entropy(jnp.zeros(1))  # log(log 2) + 1.4189
      Array(1.0524, dtype=float32)
    """
    scale = at_least_f32(scale)
    return jnp.sum(safe.log_softplus(scale) + math.log(2 * math.pi * math.e) / 2)


def stn(
    train_loss: Callable[[PyTree, Float[Array, "n h"], PyTree], Float[Array, ""]],
    valid_loss: Callable[[PyTree, Float[Array, "n h"], PyTree], Float[Array, ""]],
    tx: optax.GradientTransformation,
    hyper_tx: optax.GradientTransformation,
    *,
    examples: int,
    entropy: ScalarLike = 1e-5,
    tune_scale: bool = True,
) -> Stn:
    """Tunes hyperparameters while training: steps on weights, then on hyperparameters.

    weights: params -= d L_train(params, hyper + softplus(scale) e)/d params
    hypers:  (hyper, scale) -= d [L_valid(params, same draw) - entropy H(scale)]

    Args:
      train_loss: (params, hyper [n, h], batch) -> f[], regularised as hyper says.
      valid_loss: the same of validation data, without the regulariser; hyper enters by
        the best response alone.
      tx: optimizer of the parameters.
      hyper_tx: of (hyper, scale).
      examples: n, how many draws a batch takes; its number of examples, as a rule.
      entropy: weight of the entropy; 1e-5 as in the authors' code.
      tune_scale: whether scale moves; if not, hyper is not perturbed in its own steps.
    Returns:
      Stn(init, step). init(params, hyper, scale). step(state, (train batches
      [steps, ...], validation batches [steps, ...], key)) gives (state, the last losses
      of both); it is a step for `scan`. The authors take 2 and 1 batches; warm up
      with 0 validation batches.
    Gradient: of the steps, through everything.
    Cost: a gradient a batch; no training is unrolled.
    Source: MacKay et al., "Self-Tuning Networks: Bilevel Optimization of
      Hyperparameters using Structured Best-Response Functions", 2019, arXiv:1903.03088,
      alg. 1. Differs: hyper and scale share an optimizer.
    Example:
      >>> loss = lambda w, hyper, batch: jnp.mean((w[None] - hyper) ** 2)
      >>> valid = lambda w, hyper, batch: jnp.mean((w[None] * hyper - 1.0) ** 2)
      >>> tuner = stn(loss, valid, optax.sgd(0.1), optax.sgd(0.1), examples=8)
      >>> state = tuner.init(jnp.zeros(1), jnp.zeros(1), -3 * jnp.ones(1))
      >>> data = jnp.zeros((2, 8)), jnp.zeros((1, 8)), jax.random.key(0)
      >>> tuner.step(state, data)[1][1]
      Array(0.9999, dtype=float32)
    """
    at_least("examples", examples, 1)

    def init(params, hyper, scale):
        around = hyper, scale
        return StnState(params, hyper, scale, tx.init(params), hyper_tx.init(around))

    def step(state, data):
        train, valid, key = data
        key, other = jax.random.split(key)

        def on_weights(state, given):
            batch, key = given
            hyper = perturb_hyper(state.hyper, state.scale, key=key, examples=examples)
            loss, grads = jax.value_and_grad(train_loss)(state.params, hyper, batch)
            updates, opt = tx.update(grads, state.opt, state.params)
            params = optax.apply_updates(state.params, updates)
            return state._replace(params=params, opt=opt), loss

        def on_hypers(state, given):
            batch, key = given

            def loss_of(around):
                hyper, scale = around
                if tune_scale:
                    hyper = perturb_hyper(hyper, scale, key=key, examples=examples)
                else:
                    scale = lax.stop_gradient(scale)
                    hyper = jnp.broadcast_to(hyper, (examples, hyper.size))
                loss = valid_loss(state.params, hyper, batch)
                return loss - entropy * perturbation_entropy(scale), loss

            around = state.hyper, state.scale
            grads, loss = jax.grad(loss_of, has_aux=True)(around)
            updates, opt = hyper_tx.update(grads, state.hyper_opt, around)
            hyper, scale = jax.tree.leaves(optax.apply_updates(around, updates))
            scale = scale if tune_scale else state.scale
            return state._replace(hyper=hyper, scale=scale, hyper_opt=opt), loss

        state, train_losses = lax.scan(on_weights, state, _keyed(train, key))
        state, valid_losses = lax.scan(on_hypers, state, _keyed(valid, other))
        return state, (_last(train_losses), _last(valid_losses))

    return Stn(init, step)


def _keyed(batches: PyTree, key: Key[Array, ""]) -> tuple[PyTree, Array]:
    if not jax.tree.leaves(batches):
        raise ValueError("batches: wanted arrays [steps, ...], came none")
    steps = jax.tree.leaves(batches)[0].shape[0]
    return batches, jax.random.split(key, steps)


def _last(losses: Float[Array, " steps"]) -> Float[Array, ""]:
    """0 of none."""
    return losses[-1] if losses.shape[0] else jnp.zeros((), losses.dtype)


def _wide(bias: Float[ArrayLike, " out"], x: Array) -> Array:
    bias = jnp.asarray(bias)
    return bias.reshape((1,) * (x.ndim - 1) + bias.shape)
