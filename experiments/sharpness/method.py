"""A training step with a variant: what it is given, and where its memory is.

There are three shapes. A transformation stands before the optimizer in `optax.chain`
and is given all that any of them asks for; a loss with memory is added to cross
entropy; a perturbation is added to the weights before the one gradient.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from jaxtricks import losses
from jaxtricks._pairs import Loss

from . import variants
from .variants import BASE, Run

Batch = dict[str, Any]  # image, labels, index


class Task(NamedTuple):
    """What is learnt."""

    logits: Callable[[PyTree, Batch], Array]  # (params, batch) -> f32[batch, classes]
    classes: int
    examples: int


class Method(NamedTuple):
    """init(params) -> state; step(params, state, batch, key) -> (params, state)."""

    init: Callable[[PyTree], PyTree]
    step: Callable[..., tuple[PyTree, PyTree]]


def method(
    name: str, task: Task, base: optax.GradientTransformation, run: Run
) -> Method:
    """The variant's step, with `base` as the optimizer."""
    run = run._replace(base=base)
    made = optax.identity() if name == BASE else variants.made(name, run)
    if isinstance(made, Loss):
        return remembered(made, task, base, run)
    alone = name != BASE and variants.TABLE[name].whole
    return transformed(made, task, optax.identity() if alone else base)


def transformed(
    first: optax.GradientTransformation, task: Task, base: optax.GradientTransformation
) -> Method:
    """With a transformation of the gradient."""
    tx = optax.chain(optax.with_extra_args_support(first), base)

    def losses_fn(params, batch):
        return losses.cross_entropy(task.logits(params, batch), batch["labels"])

    def value_fn(params, batch):
        return jnp.mean(losses_fn(params, batch))

    def step(params, state, batch, key):
        value, grads = jax.value_and_grad(value_fn)(params, batch)
        updates, state = tx.update(
            grads,
            state,
            params,
            grad_fn=lambda params, batch=batch: jax.grad(value_fn)(params, batch),
            value_fn=lambda params, batch=batch: value_fn(params, batch),
            losses_fn=lambda params, batch=batch: losses_fn(params, batch),
            batch=batch,
            value=value,
            key=key,
        )
        return optax.apply_updates(params, updates), state

    return Method(tx.init, step)


def remembered(
    pair: Loss, task: Task, base: optax.GradientTransformation, run: Run
) -> Method:
    """With a loss that has memory, by the names of what it asks for."""

    def init(params):
        known = {"params": params, "examples": task.examples, "classes": task.classes}
        memory = pair.init(**_asked(pair.init, known))
        return memory, base.init(params), jnp.int32(0)

    def step(params, state, batch, key):
        memory, opt, at = state
        known = {"index": batch["index"], "epoch": at // run.epoch, "key": key}
        known["forward"] = lambda params: task.logits(params, batch)

        def objective(params):
            given = _asked(pair.update, known | {"params": params})
            logits = task.logits(params, batch)
            each, after = pair.update(logits, batch["labels"], memory, **given)
            return jnp.mean(each), after

        grads, memory = jax.grad(objective, has_aux=True)(params)
        updates, opt = base.update(grads, opt, params)
        return optax.apply_updates(params, updates), (memory, opt, at + 1)

    return Method(init, step)


def _asked(fn: Callable, known: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in known.items() if k in inspect.signature(fn).parameters}
