"""Merging: one model out of several of the same shape, without training.

A merge is `name(base?, trees, *, ..., where=None)` on pytrees of parameters, and
`name_leaf(stack, ...)` on one parameter of all models, stacked along axis 0. Both jit,
vmap over coefficients, differentiate in weights, and leave shardings alone. Names load
when first used, so that tools that merge files need not start jax.
"""

import importlib
from typing import TYPE_CHECKING

__all__ = [
    "add_task_vectors",
    "linear",
    "linear_leaf",
    "task_vector",
    "ties",
    "ties_leaf",
]

if TYPE_CHECKING:
    from ._linear import linear, linear_leaf
    from ._task_vector import add_task_vectors, task_vector
    from ._ties import ties, ties_leaf
else:
    _MODULE = {
        "add_task_vectors": "_task_vector",
        "linear": "_linear",
        "linear_leaf": "_linear",
        "task_vector": "_task_vector",
        "ties": "_ties",
        "ties_leaf": "_ties",
    }

    def __getattr__(name):
        if name in _MODULE:
            return getattr(importlib.import_module(f"{__name__}.{_MODULE[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return __all__
