"""Losses: `name(prediction, target, *, hyperparameters, where) -> f32[*batch]`.

Per example, classes on the last axis, nothing reduced: pass the result through
`jaxtricks.weighting` if wanted and `jaxtricks.reduce.mean` at the end.
"""

from ._focal import focal

__all__ = ["focal"]
