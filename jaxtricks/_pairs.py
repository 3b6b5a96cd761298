"""The (init, update) pairs of stateful tricks, in optax's manner.

A pair is made from hyperparameters; its state is a NamedTuple of arrays that the caller
carries, so that it jits, shards, checkpoints and differentiates like any pytree.
"""

from collections.abc import Callable
from typing import NamedTuple


class Loss(NamedTuple):
    """A loss with memory: init(examples) -> state, and

    update(prediction, target, state, *, index=None, where=None) -> (losses, state).
    """

    init: Callable
    update: Callable


class Weighting(NamedTuple):
    """A weighting with memory: init() -> state, and

    update(losses, state, *, where=None, axis_name=None) -> (weights, state).
    """

    init: Callable
    update: Callable
