"""Weightings: how much each example of the batch counts, from its own loss.

`name(losses, *, <hyper>, where=None, axis_name=None) -> weights`, at the scale of the
paper; `normalize` makes the live mean 1. Gradients stop at the losses on the way in, so
that the hyperparameters stay differentiable. `kl_dro_moving` has memory and is an
(init, update) pair.
"""

from ._causal import causal
from ._kl_dro import kl_dro, kl_dro_moving
from ._loss_based import extremes, linupper, quadratic, upper
from ._normalize import normalize

__all__ = [
    "causal",
    "extremes",
    "kl_dro",
    "kl_dro_moving",
    "linupper",
    "normalize",
    "quadratic",
    "upper",
]
