"""One line for each weighting; gradients at the losses are zero by construction."""

import jax.numpy as jnp
import numpy as np

from jaxtricks import weighting
from tests.case import Case, Inputs
from tests.inputs import losses, rng


def _weights(batch):
    return rng(11, *batch).gamma(2.0, size=batch).astype(np.float32)


weights = Inputs(
    make=lambda batch: (_weights(batch),),
    batched=(True,),
    edges=lambda: {
        "zero": (np.zeros(8, np.float32),),
        "identical": (np.full(8, 0.3, np.float32),),
        "one of eight": (np.eye(8, dtype=np.float32)[3],),
        "huge": (_weights((8,)) * 1e4,),
        "tiny": (_weights((8,)) * 1e-12,),
    },
)


def uniform(x):
    return jnp.full_like(x, 1 / x.size)


def second_update(fn, data, kwargs):
    """The weights of an update that meets the memory of an easier batch."""
    batch = {key: kwargs.pop(key) for key in ("where", "axis_name") if key in kwargs}
    init, update = fn(**kwargs)
    _, state = update(jnp.asarray(data[0]) / 2, init(), **batch)
    return update(data[0], state, **batch)[0]


SCALE = {"temperature": 0.7, "delta": 1.3}
POSITIVE = ({"temperature": 0.0}, {"temperature": -1}, {"delta": 0})
FLAT = (("hot is uniform", uniform, {"temperature": 1e9}),)

OWN = "tests/weighting/test_weighting.py"

CASES = [
    Case(
        weighting.linupper,
        losses,
        SCALE,
        coupled=True,
        tests=OWN,
        smooth=("temperature", "delta"),
        limits=FLAT,
        bad=POSITIVE,
    ),
    Case(
        weighting.upper,
        losses,
        SCALE,
        coupled=True,
        tests=OWN,
        smooth=("temperature", "delta"),
        limits=(
            *FLAT,
            (
                "upper is kl_dro at the temperature r (l_max - l_min) / delta",
                lambda x: weighting.kl_dro(x, temperature=0.7 / 1.3 * np.ptp(x)),
                {},
            ),
        ),
        bad=POSITIVE,
    ),
    Case(
        weighting.extremes,
        losses,
        SCALE,
        coupled=True,
        tests=OWN,
        smooth=("temperature", "delta"),
        limits=FLAT,
        bad=POSITIVE,
    ),
    Case(
        weighting.quadratic,
        losses,
        {"temperature": 0.7},
        coupled=True,
        tests=OWN,
        smooth=("temperature",),
        limits=FLAT,
        bad=({"temperature": 0.0},),
    ),
    Case(
        weighting.kl_dro,
        losses,
        {"temperature": 0.7},
        coupled=True,
        tests=OWN,
        smooth=("temperature",),
        limits=(
            *FLAT,
            (
                "cold is the hardest example alone",
                lambda x: x == np.max(x),
                {"temperature": 1e-4},
            ),
        ),
        bad=({"temperature": 0.0},),
    ),
    Case(
        weighting.kl_dro_moving,
        losses,
        {"temperature": 0.7, "beta": 0.3},
        call=second_update,
        coupled=True,
        tests=OWN,
        smooth=("temperature", "beta"),
        limits=(
            (
                "beta 1 is kl_dro",
                lambda x: weighting.kl_dro(x, temperature=0.7),
                {"beta": 1.0},
            ),
            *FLAT,
        ),
        bad=({"temperature": 0.0}, {"beta": 0.0}, {"beta": 1.5}),
    ),
    Case(
        weighting.causal,
        losses,
        {"eps": 0.2, "initial_loss": 0.01, "lam_ic": 30.0},
        coupled=True,
        tests=OWN,
        ordered=True,
        smooth=("eps", "lam_ic"),
        limits=(("eps 0 weighs all alike", jnp.ones_like, {"eps": 0.0}),),
        bad=({"eps": -1.0}, {"lam_ic": -1.0}),
    ),
    Case(weighting.normalize, weights, coupled=True, tests=OWN),
]
