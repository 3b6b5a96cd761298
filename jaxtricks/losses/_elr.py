"""Early-learning regularisation: an example is held to what was learnt of it early."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Integer, ScalarLike

from .._batch import AxisName, replicate, share, whole
from .._check import at_least, between
from .._mask import at_label, at_least_f32, blank
from .._pairs import Loss
from .._safe import divide
from ._memory import slots_of


class ElrState(NamedTuple):
    """What is remembered of every training example."""

    target: Float[Array, "examples classes"]  # f32[examples, classes]


def elr(*, lam: ScalarLike = 3.0, beta: ScalarLike = 0.7) -> Loss:
    """Cross entropy that keeps to what the model first believed; for noisy labels.

    t_i <- beta t_i + (1 - beta) p / sum(p),  p = clip(softmax(logits), 1e-4, 1 - 1e-4)
    loss = -log softmax(logits)_y + lam log(1 - <t_i, p>)

    init(examples, classes) remembers nothing, zeros, of each of `examples`.
    update(logits, labels, state, *, index, where=None, axis_name=None) gives the losses
    and the state with the new t_i of the batch.

    Args:
      lam: >= 0, weight of the memory; 0 is cross entropy. The source: 3 on CIFAR-10, 7
        on CIFAR-100. May be traced.
      beta: in [0, 1], how much of t_i stays; the source: 0.7 and 0.9. May be traced.
    Returns:
      Loss(init, update); update's losses are f32[*batch], any sign, 0 where masked.
      index: int[*batch] in [0, examples), each example's place; out of range gives NaN
      and changes nothing, as a masked example does. An example that is twice in a
      batch counts with the mean of its p. axis_name: the axis of shard_map or pmap
      that the batch is split over; the state is replicated.
    Gradient: t_i is constant in the logits, smooth in beta; the rest is smooth in
      logits, save at the two clips where it is 0, and in lam.
    Cost: two softmaxes; 4 bytes an example and class; the batch's indices and p go to
      every device.
    Raises: ValueError for a shape that does not fit, a negative lam, beta outside
      [0, 1] or a missing index.
    Source: Liu et al., "Early-Learning Regularization Prevents Memorization of Noisy
      Labels", 2020, arXiv:2007.00151, eq. 6 and 9. Differs: the clips are the official
      code's; ELR+ (two networks, weight averaging, mixup) is not here.
    Example:
      >>> init, update = elr()
      >>> z, y = jnp.array([[0.0, 3.0]]), jnp.array([0])
      >>> losses, state = update(z, y, init(5, 2), index=jnp.array([4]))
      >>> print(*losses, *state.target[4])
      2.0925 0.0142 0.2858
    """
    at_least("lam", lam, 0)
    between("beta", beta, 0, 1)

    def init(examples: int, classes: int) -> ElrState:
        return ElrState(jnp.zeros((examples, classes)))

    def update(
        logits: Float[ArrayLike, "*batch classes"],
        labels: Integer[ArrayLike, "*batch"],
        state: ElrState,
        *,
        index: Integer[ArrayLike, "*batch"] | None = None,
        where: Bool[ArrayLike, "*batch"] | None = None,
        axis_name: AxisName | None = None,
    ) -> tuple[Float[Array, "*batch"], ElrState]:
        log_p = jax.nn.log_softmax(blank(at_least_f32(logits), where))
        examples, classes = state.target.shape
        if log_p.shape[-1] != classes:
            raise ValueError(f"logits: wanted {classes} classes, came {log_p.shape}")
        slot = slots_of(index, log_p.shape[:-1], examples, where)
        slots = jnp.ravel(replicate(slot, axis_name))
        p = jnp.clip(jnp.exp(log_p), 1e-4, 1 - 1e-4)
        now = lax.stop_gradient(p / jnp.sum(p, axis=-1, keepdims=True))
        everyone = jnp.reshape(replicate(now, axis_name), (-1, classes))

        memory = whole(state.target)
        seen = jnp.zeros(examples, p.dtype).at[slots].add(1.0, mode="drop")[:, None]
        mean = jnp.zeros_like(memory).at[slots].add(everyone, mode="drop")
        mean = divide(mean, seen)
        known = (seen > 0) & jnp.isfinite(mean)  # NaN would stay for ever
        memory = jnp.where(known, beta * memory + (1 - beta) * mean, memory)
        t = memory.at[slots].get(mode="fill", fill_value=jnp.nan)
        t = jnp.reshape(t, (*(replicate(slot, axis_name).shape), classes))
        t = blank(share(t, slot, axis_name), where)

        losses = -at_label(log_p, blank(labels, where))
        losses += lam * jnp.log1p(-jnp.sum(t * p, axis=-1))
        after = ElrState(share(memory.astype(state.target.dtype), state.target))
        return blank(losses, where), after

    return Loss(init, update)
