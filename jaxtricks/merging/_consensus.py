"""How changes are combined: their sum, or an election of signs first."""

from typing import Any, Literal

from jaxtyping import Float

from .._check import one_of
from ._namespace import along, nonzero

Sign = Literal["total", "frequency"]
Divisor = Literal["weights", "count"]
Consensus = Literal["linear", "ties"]


def combine(
    xp: Any,
    changes: Float[Any, "n ..."],
    weights: Float[Any, " n"],
    *,
    consensus: Consensus = "ties",
    sign: Sign = "total",
    normalize: bool = True,
    divisor: Divisor = "weights",
) -> Float[Any, "..."]:
    """sum_i w_i change_i, over all or over those of the elected sign.

    normalize divides by the weights in that sum, or by their count; by 1 where that is
    0 (for all together: below 1e-8, where a sum of weights is rounding). Who is counted
    alike votes alike: with "count" the changes are elected by without their weights.
    """
    one_of("consensus", consensus, ("linear", "ties"))
    one_of("sign", sign, ("total", "frequency"))
    one_of("divisor", divisor, ("weights", "count"))
    w = along(weights, changes)
    weighted = w * changes
    if consensus == "linear":
        total = xp.sum(weighted, axis=0)
        if not normalize:
            return total
        share = xp.sum(weights) if divisor == "weights" else changes.shape[0]
        return total / xp.where(xp.abs(share) < 1e-8, 1, share)
    votes = weighted if divisor == "weights" else changes
    tally = xp.sum(votes if sign == "total" else xp.sign(votes), axis=0, keepdims=True)
    against = xp.where(tally >= 0, votes <= 0, votes >= 0)  # which no NaN is
    total = xp.sum(xp.where(against, 0, weighted), axis=0)
    if not normalize:
        return total
    counted = w if divisor == "weights" else xp.ones_like(w)
    return total / nonzero(xp, xp.sum(xp.where(against, 0, counted), axis=0))
