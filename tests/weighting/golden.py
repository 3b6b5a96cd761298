"""Numbers for the weightings: formulas in numpy f64, and the authors' code.

Inputs are multiples of 1/32, so that f32 and f64 hold the same numbers.
"""

import numpy as np

from jaxtricks import weighting
from tests.case import Golden
from tests.oracles import numbers

LOSSES = np.array([2.40625, 0.53125, 1.78125, 3.90625, 1.15625, 2.96875], np.float32)
LIVE = np.array([True, True, False, True, True, False])
SQUARE = LOSSES.reshape(2, 3)


def at_live(x):
    """The results of the live four among the six."""
    out = np.zeros(6)
    out[LIVE] = x
    return out


# --- from the place of a loss in its batch --------------------------------------------

DYNAMIC = "sowmaster/Sample-Level-Loss-Reweighting-ICLR-2025@edd6f15, arXiv:2502.06733"


def loss_based(losses, strategy, temperature=1.0, delta=1.0):
    x = np.asarray(losses, np.float64)
    low, high = x.min(), x.max()
    span = max(high - low, 1e-6)
    h = 2 * delta * x / span - delta * (high + low) / span
    score = {
        "linupper": np.minimum(h + delta, delta),
        "upper": 0.5 * h + 0.5 * delta,
        "quadratic": 1 - h**2 / delta**2,
        "extremes": np.abs(h),
    }[strategy]
    w = np.exp((score - score.max()) / temperature)
    return w / w.sum()


LOSS_BASED_ROWS = [
    # Official numbers at temperature 1, at 0.375, and at 0.375 for the live four.
    Golden(
        weighting.linupper,
        (LOSSES,),
        {},
        numbers(
            "0.2140277429 0.07873640645 0.1651487177 0.2140277429 0.1140316472 "
            "0.2140277429"
        ),
        DYNAMIC,
    ),
    Golden(
        weighting.linupper,
        (LOSSES,),
        {"temperature": 0.375},
        numbers(
            "0.2661742819 0.01849470773 0.1333254677 0.2661742819 "
            "0.04965697895 0.2661742819"
        ),
        DYNAMIC,
    ),
    Golden(
        weighting.linupper,
        (LOSSES,),
        {"temperature": 0.375, "where": LIVE},
        at_live([0.4432542395833, 0.03079883433538, 0.4432542395833, 0.08269268649812]),
        DYNAMIC,
    ),
    Golden(
        weighting.linupper,
        (LOSSES,),
        {"temperature": 0.625, "delta": 0.75},
        numbers(
            "0.2220457575 0.06687889695 0.1626779313 0.2220457575 0.1043058992 "
            "0.2220457575"
        ),
        DYNAMIC,
    ),
    Golden(
        weighting.quadratic,
        (LOSSES,),
        {},
        numbers(
            "0.237895341 0.0886039565 0.2251937514 0.0886039565 0.1620237682 "
            "0.1976792264"
        ),
        DYNAMIC,
    ),
    Golden(
        weighting.quadratic,
        (LOSSES,),
        {"temperature": 0.375},
        numbers(
            "0.335924695 0.02412243106 0.2901992785 0.02412243106 0.1206209401 "
            "0.2050102243"
        ),
        DYNAMIC,
    ),
    Golden(
        weighting.quadratic,
        (LOSSES,),
        {"temperature": 0.375, "where": LIVE},
        at_live([0.6654734921367, 0.04778701498573, 0.04778701498573, 0.2389524778918]),
        DYNAMIC,
    ),
    # The paper's delta cancels: these are the official numbers at delta 0.75.
    Golden(
        weighting.quadratic,
        (LOSSES,),
        {"temperature": 0.625},
        numbers(
            "0.2768352457 0.05700708936 0.2535677519 0.05700708936 "
            "0.1497372486 0.2058455751"
        ),
        DYNAMIC,
    ),
    Golden(
        weighting.extremes,
        (LOSSES,),
        {},
        numbers(
            "0.0990129829 0.2408416999 0.1148238403 0.2408416999 0.1662960278 "
            "0.1381837492"
        ),
        DYNAMIC,
    ),
    Golden(
        weighting.extremes,
        (LOSSES,),
        {"temperature": 0.375},
        numbers(
            "0.03299750275 0.3531179915 0.04898399503 0.3531179915 "
            "0.1315185536 0.08026396561"
        ),
        DYNAMIC,
    ),
    Golden(
        weighting.extremes,
        (LOSSES,),
        {"temperature": 0.375, "where": LIVE},
        at_live([0.0378954067928, 0.4055322015294, 0.4055322015294, 0.1510401901485]),
        DYNAMIC,
    ),
    Golden(
        weighting.extremes,
        (LOSSES,),
        {"temperature": 0.625, "delta": 0.75},
        numbers(
            "0.0880219423 0.255763399 0.1051474768 0.255763399 0.1639904755 "
            "0.1313133075"
        ),
        DYNAMIC,
    ),
    Golden(
        weighting.upper,
        (LOSSES,),
        {},
        loss_based(LOSSES, "upper"),
        "numpy f64 oracle of arXiv:2502.06733, strategy upper",
    ),
    Golden(
        weighting.upper,
        (LOSSES,),
        {"temperature": 0.625, "delta": 0.75},
        loss_based(LOSSES, "upper", 0.625, 0.75),
        "numpy f64 oracle of arXiv:2502.06733, strategy upper",
    ),
    *[
        Golden(
            getattr(weighting, name),
            (losses,),
            {"temperature": temperature, "where": where},
            expect,
            "numpy f64 oracle of arXiv:2502.06733",
        )
        for name in ("linupper", "upper", "quadratic", "extremes")
        for losses, temperature, where, expect in (
            (LOSSES, 0.25, LIVE, at_live(loss_based(LOSSES[LIVE], name, 0.25))),
            (SQUARE, 1.0, None, loss_based(LOSSES, name).reshape(2, 3)),
            # A range below 1e-6 is stretched by 1e6, not to the ends.
            (LOSSES * 2**-23, 1.0, None, loss_based(LOSSES * 2**-23, name)),
            (LOSSES[:3] * 0 + 2.5, 1.0, None, np.full(3, 1 / 3)),
        )
    ],
]


# --- KL-regularised -------------------------------------------------------------------

KL_DRO = "numpy f64 oracle of arXiv:2308.00311"


def kl_dro(losses, temperature=1.0):
    w = np.exp(np.asarray(losses, np.float64) / temperature)
    return w / w.sum()


def kl_dro_by_search(losses, temperature):
    """The definition: the maximum over the simplex, by mirror ascent."""
    x = np.asarray(losses, np.float64)
    w = np.full(x.size, 1 / x.size)
    for _ in range(500):
        w = w * np.exp(0.1 * (x - temperature * np.log(x.size * w)))
        w = w / w.sum()
    return w


# The fourth is harder than what is remembered, the fifth so much that exp overflows.
BATCHES = (
    LOSSES,
    LOSSES[::-1] * 1.5 - 2.0,
    LOSSES * 0.5 + 1.25,
    LOSSES * 2.0 + 1.0,
    LOSSES + 8192.0,
    LOSSES + 8190.0,
    LOSSES,
)
NOTHING = np.zeros(6, bool)
EVERYTHING = (None,) * 7
SOME = (None, LIVE, None, LIVE, NOTHING, LIVE, None)


def all_steps(masks, temperature=1.0):
    """What each batch weighs, then log u after each."""

    def pick(moving):
        state, weights, logs = moving.init(), [], []
        for losses, where in zip(BATCHES, masks, strict=True):
            w, state = moving.update(losses, state, where=where)
            weights.append(w)
            logs.append(state.anchor / temperature + state.log_ratio)
        return np.concatenate([*weights, np.array(logs)])

    return pick


def all_steps_oracle(masks, temperature=1.0, beta=0.1):
    log_u, weights, logs = -np.inf, [], []
    for losses, where in zip(BATCHES, masks, strict=True):
        live = np.ones(6, bool) if where is None else where
        powers = np.where(live, np.asarray(losses, np.float64) / temperature, -np.inf)
        if live.any():
            log_mean = np.logaddexp.reduce(powers) - np.log(live.sum())
            with np.errstate(divide="ignore"):
                mixed = np.logaddexp(np.log(1 - beta) + log_u, np.log(beta) + log_mean)
            log_u = log_mean if log_u == -np.inf else mixed
        weights.append(
            np.exp(powers - log_u) / live.sum() if live.any() else np.zeros(6)
        )
        logs.append(log_u)
    return np.concatenate([*weights, logs])


KL_DRO_ROWS = [
    Golden(weighting.kl_dro, (LOSSES,), {}, kl_dro(LOSSES), KL_DRO),
    Golden(
        weighting.kl_dro,
        (LOSSES,),
        {"temperature": 0.375},
        kl_dro_by_search(LOSSES, 0.375),
        "numpy f64 search of the maximum in arXiv:2308.00311",
    ),
    Golden(
        weighting.kl_dro,
        (LOSSES,),
        {"temperature": 2.5, "where": LIVE},
        at_live(kl_dro(LOSSES[LIVE], 2.5)),
        KL_DRO,
    ),
    # Losses of up to 125 temperatures: their exp is past f32.
    Golden(
        weighting.kl_dro,
        (LOSSES,),
        {"temperature": 2.0**-5},
        kl_dro(LOSSES, 2.0**-5),
        KL_DRO,
        atol=1e-38,
    ),
    *[
        Golden(
            weighting.kl_dro_moving,
            (),
            hyper,
            all_steps_oracle(masks, **hyper),
            KL_DRO,
            pick=all_steps(masks, hyper.get("temperature", 1.0)),
        )
        for hyper, masks in (
            ({}, EVERYTHING),
            ({"temperature": 0.75, "beta": 0.375}, SOME),
            ({"temperature": 2.5, "beta": 0.625}, (NOTHING, LIVE, *SOME[2:])),
            ({"temperature": 1.5, "beta": 1}, SOME),
        )
    ],
]


# --- causal ---------------------------------------------------------------------------

CAUSAL = "PredictiveIntelligenceLab/CausalPINNs@0d1d83f in numpy f64, arXiv:2203.07404"


def causal(losses, eps=1.0, initial_loss=0.0, lam_ic=1e3):
    x = np.asarray(losses, np.float64)
    steps = x.shape[-1]
    earlier = np.triu(np.ones((steps, steps)), k=1).T
    return np.exp(-eps * (x @ earlier.T + lam_ic * initial_loss))


CAUSAL_ROWS = [
    Golden(weighting.causal, (LOSSES,), {}, causal(LOSSES), CAUSAL),
    Golden(
        weighting.causal,
        (LOSSES,),
        {"eps": 0.125, "initial_loss": 2.0**-9},
        causal(LOSSES, 0.125, 2.0**-9),
        CAUSAL,
    ),
    Golden(
        weighting.causal,
        (LOSSES,),
        {"eps": 0.375, "initial_loss": 0.015625, "lam_ic": 24.0, "where": LIVE},
        at_live(causal(LOSSES[LIVE], 0.375, 0.015625, 24.0)),
        CAUSAL,
    ),
    Golden(weighting.causal, (SQUARE,), {"eps": 0.25}, causal(SQUARE, 0.25), CAUSAL),
    Golden(weighting.causal, (LOSSES[0],), {"eps": 0.25}, 1.0, CAUSAL),
]


# --- scale ----------------------------------------------------------------------------

HAND = "by hand from the definition"
WEIGHTS = np.array([[0.5, 2.0, 0.25], [3.0, 1.25, 1.0]], np.float32)

NORMALIZE_ROWS = [
    Golden(weighting.normalize, (WEIGHTS,), {}, WEIGHTS * (6 / 8), HAND),
    Golden(
        weighting.normalize,
        (WEIGHTS.ravel(),),
        {"where": LIVE},
        WEIGHTS.ravel() * LIVE * (4 / 6.75),
        HAND,
    ),
    Golden(weighting.normalize, (WEIGHTS * 0,), {}, WEIGHTS * 0, HAND),
]

ROWS = [*LOSS_BASED_ROWS, *KL_DRO_ROWS, *CAUSAL_ROWS, *NORMALIZE_ROWS]
