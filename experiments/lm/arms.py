"""What each arm is: a loss, a transformation and a schedule, from the library."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from jaxtricks import kernels, reduce, schedules, sharpness, weighting

from .config import Config

# What an arm adds to AdamW with a cosine schedule.
TRICKS = {
    "adamw": frozenset(),
    "wsd": frozenset({"wsd"}),
    "sam": frozenset({"sam"}),
    "reweight": frozenset({"reweight"}),
    "all": frozenset({"wsd", "sam", "reweight"}),
}


class State(NamedTuple):
    """What a checkpoint holds, beside the data iterator."""

    params: PyTree
    opt: PyTree
    step: Int[Array, ""]  # updates so far


class Arm(NamedTuple):
    """init(params) -> State; step(state, batch) -> (State, mean loss of the batch)."""

    init: Callable[[PyTree], State]
    step: Callable[[State, dict[str, Any]], tuple[State, Float[Array, ""]]]


def build(name: str, config: Config, forward: Callable) -> Arm:
    """The arm `name`; forward(params, tokens) -> (hidden, head)."""
    tricks = TRICKS[name]
    tx = transformation(tricks, config)

    def loss_fn(params, batch, step):
        hidden, head = forward(params, batch["inputs"])
        live = batch["mask"]
        nll = kernels.linear_cross_entropy(hidden, head, batch["targets"], where=live)
        plain = reduce.mean(nll, where=live)
        if "reweight" not in tricks:
            return plain, plain
        per_window = jax.vmap(reduce.mean)(nll, where=live)
        weights = weighting.linupper(per_window, temperature=temperature(config, step))
        weights = jnp.broadcast_to(weights[:, None], nll.shape)
        return reduce.mean(nll, weights=weights, where=live), plain

    def init(params):
        return State(params, tx.init(params), jnp.int32(0))

    def step(state, batch):
        def grad_fn(params):
            return jax.grad(loss_fn, has_aux=True)(params, batch, state.step)

        grads, loss = grad_fn(state.params)
        updates, opt = tx.update(
            grads, state.opt, state.params, grad_fn=lambda params: grad_fn(params)[0]
        )
        params = optax.apply_updates(state.params, updates)
        return State(params, opt, state.step + 1), loss

    return Arm(init, step)


def transformation(
    tricks: frozenset[str], config: Config
) -> optax.GradientTransformationExtraArgs:
    """SAM where asked for, then clipping, then AdamW under the arm's schedule."""
    parts = [sharpness.sam(config.rho)] if "sam" in tricks else []
    adamw = optax.adamw(
        learning_rate(tricks, config),
        b2=0.99,
        weight_decay=config.weight_decay,
        mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
    )
    parts += [optax.clip_by_global_norm(config.clip), adamw]
    return optax.with_extra_args_support(optax.chain(*parts))


def learning_rate(tricks: frozenset[str], config: Config) -> optax.Schedule:
    warmup = int(config.warmup * config.steps)
    end = config.lr * config.lr_end
    if "wsd" in tricks:
        return schedules.wsd(
            config.lr,
            total_steps=config.steps,
            warmup_steps=warmup,
            decay_steps=int(config.decay * config.steps),
            end=end,
        )
    return optax.warmup_cosine_decay_schedule(0.0, config.lr, warmup, config.steps, end)


def temperature(config: Config, step: Int[Array, ""]) -> Float[Array, ""]:
    """Falls over the warmup from nearly uniform weights: early losses say little."""
    warmup = max(1, int(config.warmup * config.steps))
    return config.temperature * warmup / jnp.clip(step + 1, 1, warmup)
