"""Averages of the parameters along training: exponential, since a step, of the latest.

Each is a pair (init, update) like an optimizer's; update(params, state) gives the
average and the new state, inside of a scan or a jitted step. Averages are kept in at
least f32, as a bf16 one would stand still; leaves that are no floats are the latest.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree, ScalarLike

from .. import _safe as safe
from .. import _tree as tree
from .._check import at_least, between
from .._mask import at_least_f32


class Averaging(NamedTuple):
    """An average of parameters along training."""

    init: Callable[[PyTree], PyTree]  # params -> state
    update: Callable[[PyTree, PyTree], tuple]  # params, state -> (average, state)


class AverageState(NamedTuple):
    """What an average remembers."""

    step: Int[Array, ""]  # int32[], updates so far
    memory: PyTree  # f32 like the parameters; [size, *shape] in their dtypes for lawa


def ema(
    decay: ScalarLike = 0.999, *, debias: bool = False, warmup: bool = False
) -> Averaging:
    """The exponential moving average of the parameters; for sampling and evaluation.

    m <- decay m + (1 - decay) params

    Args:
      decay: in [0, 1]; 0 is the latest. May be traced.
      debias: begin at 0 and divide by 1 - decay^t, rather than at the first parameters
        (static).
      warmup: take min(decay, (1 + t) / (10 + t)) at step t = 1, 2, ... (static).
    Returns:
      `Averaging`: init(params), update(params, state) -> (average, state), the average
      with the parameters' dtypes.
    Gradient: linear in params; smooth in decay.
    Cost: one copy in at least f32.
    Raises: ValueError for a decay out of range, for debias with warmup; in update for
      params that differ from the state's (with the paths).
    Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by
      Averaging", 1992. Differs: exponential weights, as TensorFlow made them common.
    Example:
      >>> average = ema(0.9)
      >>> state = average.init(jnp.zeros(2))
      >>> average.update(jnp.ones(2), state)[0]
      Array([0.1, 0.1], dtype=float32)
    """
    between("decay", decay, 0, 1)
    if debias and warmup:
        raise ValueError("debias: wanted without warmup, came both")

    def init(params):
        memory = _copied(params)
        if debias:
            memory = tree.map_floats(jnp.zeros_like, memory)
        return AverageState(jnp.zeros((), jnp.int32), memory)

    def update(params, state):
        tree.check_alike("params", params, state.memory)
        step = state.step + 1
        t = step.astype(jnp.float32)
        rate = jnp.minimum(decay, (1 + t) / (10 + t)) if warmup else decay

        def mix(m, p):
            return m + (1 - jnp.asarray(rate, m.dtype)) * (p - m)

        memory = tree.map_floats(mix, state.memory, params)
        mean = memory
        if debias:
            share = safe.nonzero(1 - jnp.power(jnp.float32(decay), t))
            mean = tree.map_floats(lambda m: m / share.astype(m.dtype), memory)
        memory = _latest(memory, params)
        return _as_params(mean, params), AverageState(step, memory)

    return Averaging(init, update)


def swa(*, start: int = 0, every: int = 1) -> Averaging:
    """The mean of the parameters from a step on, every so often; for constant rates.

    m <- m + (params - m) / k at step start, start + every, ..., k counting those

    Args:
      start: >= 0, the first step, counted from 0, that counts (static).
      every: >= 1, steps between those that count, say an epoch's (static).
    Returns:
      `Averaging`: init(params), update(params, state) -> (average, state), the average
      with the parameters' dtypes; the latest parameters before start.
    Gradient: linear in params.
    Cost: one copy in at least f32.
    Raises: ValueError for start < 0, every < 1; in update for params that differ from
      the state's (with the paths).
    Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better
      Generalization", 2018, arXiv:1803.05407, alg. 1. Differs: batch norm statistics
      are the user's to compute again.
    Example:
      >>> average = swa(start=1)
      >>> state = average.init(jnp.zeros(()))
      >>> for x in (9.0, 1.0, 2.0):
      ...     mean, state = average.update(jnp.float32(x), state)
      >>> print(mean)
      1.5
    """
    at_least("start", start, 0)
    at_least("every", every, 1)

    def init(params):
        return AverageState(jnp.zeros((), jnp.int32), _copied(params))

    def update(params, state):
        tree.check_alike("params", params, state.memory)
        since = state.step - start
        counts = (since >= 0) & (since % every == 0)
        k = jnp.maximum(since // every + 1, 1)

        def mean(m, p):
            there = m + (p - m) / k.astype(m.dtype)
            return jnp.where(since < 0, p, jnp.where(counts, there, m))

        memory = _latest(tree.map_floats(mean, state.memory, params), params)
        return _as_params(memory, params), AverageState(state.step + 1, memory)

    return Averaging(init, update)


def lawa(size: int = 6, *, every: int = 1) -> Averaging:
    """The mean of the latest checkpoints; progress without lowering the rate.

    average = mean of the params at the last `size` of the steps 0, every, 2 every, ...

    Args:
      size: >= 1, how many; the paper's 6 (static).
      every: >= 1, steps between them, say an epoch's (static).
    Returns:
      `Averaging`: init(params), update(params, state) -> (average, state), the average
      with the parameters' dtypes, of as many as there are at first.
    Gradient: linear in params.
    Cost: `size` copies in the parameters' dtypes.
    Raises: ValueError for size < 1, every < 1; in update for params that differ from
      the state's (with the paths).
    Source: Kaddour, "Stop Wasting My Time! Saving Days of ImageNet and BERT Training
      with Latest Weight Averaging", 2022, arXiv:2209.14981, section 2. Differs: none.
    Example:
      >>> average = lawa(2)
      >>> state = average.init(jnp.zeros(()))
      >>> for x in (9.0, 1.0, 2.0):
      ...     mean, state = average.update(jnp.float32(x), state)
      >>> print(mean)
      1.5
    """
    at_least("size", size, 1)
    at_least("every", every, 1)

    def init(params):
        def ring(p):
            if not tree.is_float(p):
                return p
            p = jnp.asarray(p)
            return jnp.broadcast_to(jnp.zeros_like(p)[None], (size, *p.shape))

        return AverageState(jnp.zeros((), jnp.int32), jax.tree.map(ring, params))

    def update(params, state):
        one = tree.map_floats(lambda ring: ring[0], state.memory)
        tree.check_alike("params", params, one)
        number = state.step // every
        place, counts = number % size, state.step % every == 0

        def put(p, ring):
            if not tree.is_float(p):
                return p
            here = jnp.arange(size) == place
            here = here.reshape((-1,) + (1,) * jnp.ndim(p)) & counts
            return jnp.where(here, jnp.asarray(p, ring.dtype)[None], ring)

        def mean(p, ring):
            if not tree.is_float(p):
                return p
            total = jnp.sum(at_least_f32(ring), axis=0)  # of zeros where there is none
            there = jnp.minimum(number + 1, size).astype(total.dtype)
            return (total / there).astype(ring.dtype)

        rings = jax.tree.map(put, params, state.memory)
        average = jax.tree.map(mean, params, rings)
        return average, AverageState(state.step + 1, rings)

    return Averaging(init, update)


def _copied(params: PyTree) -> PyTree:
    """In at least f32, in memory of its own: parameters and state may be donated."""
    return tree.map_floats(jnp.copy, tree.promote(params))


def _latest(memory: PyTree, params: PyTree) -> PyTree:
    """The memory, with the parameters' leaves that are no floats."""
    return jax.tree.map(lambda m, p: m if tree.is_float(p) else p, memory, params)


def _as_params(memory: PyTree, params: PyTree) -> PyTree:
    return _latest(tree.as_like(memory, params), params)
