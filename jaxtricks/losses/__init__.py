"""Losses: `name(prediction, target, *, hyperparameters, where) -> f32[*batch]`.

Per example, classes on the last axis, nothing reduced: pass the result through
`jaxtricks.weighting` if wanted and `jaxtricks.reduce.mean` at the end. A loss with
memory (`aldr_kl`) is a pair `Loss(init, update)` made from its hyperparameters.
"""

from ._comp_sum import comp_sum
from ._cross_entropy import cross_entropy
from ._dice import dice, dice_set, self_adjusting_dice, tversky
from ._focal import focal
from ._ldr import AldrKlState, aldr_kl, ldr_kl

__all__ = [
    "AldrKlState",
    "aldr_kl",
    "comp_sum",
    "cross_entropy",
    "dice",
    "dice_set",
    "focal",
    "ldr_kl",
    "self_adjusting_dice",
    "tversky",
]
