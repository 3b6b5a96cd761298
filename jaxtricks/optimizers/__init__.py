"""Optimizers that optax does not have, and what they are made of.

`name(learning_rate, *, <hyper>) -> optax.GradientTransformationExtraArgs` returns what
`optax.apply_updates` adds; `scale_by_*` returns the direction that it steps against, to
be chained as one likes.
"""

from ._adamp import adamp, scale_by_adamp
from ._adamr import adamr, scale_by_adamr
from ._cluster_de import Evolution, cluster_de, cluster_mutation
from ._compressors import rand_k, scaled_sign, top_k
from ._conjugate import Solution, conjugate_directions, scale_free_residual
from ._differentiable import differentiable
from ._ef21 import ef21, ef21_rate
from ._frugal import frugal, scale_by_frugal
from ._grad_norm_lorp import grad_norm_lorp
from ._induced_metric import induced_metric_sgd, scale_by_induced_metric
from ._matrix_recovery import Recovery, l1_matrix_recovery
from ._meco import meco
from ._perceptron import Separation, iterations_to_separate, normalize_by_error
from ._sgdp import scale_by_sgdp, sgdp
from ._spsa import spsa, stay_on_grid
from ._target_surrogate import TargetStep, target_surrogate

__all__ = [
    "Evolution",
    "Recovery",
    "Separation",
    "Solution",
    "TargetStep",
    "adamp",
    "adamr",
    "cluster_de",
    "cluster_mutation",
    "conjugate_directions",
    "differentiable",
    "ef21",
    "ef21_rate",
    "frugal",
    "grad_norm_lorp",
    "induced_metric_sgd",
    "iterations_to_separate",
    "l1_matrix_recovery",
    "meco",
    "normalize_by_error",
    "rand_k",
    "scale_by_adamp",
    "scale_by_adamr",
    "scale_by_frugal",
    "scale_by_induced_metric",
    "scale_by_sgdp",
    "scale_free_residual",
    "scaled_sign",
    "sgdp",
    "spsa",
    "stay_on_grid",
    "target_surrogate",
    "top_k",
]
