import jax
import numpy as np

from jaxtricks import optimizers
from tests.case import Case
from tests.free.transform import make_params

PRETRAINED = jax.tree.map(lambda p: np.asarray(p) - 0.25, make_params())
HYPER = {"b1": 0.8, "b2": 0.95, "eps": 1e-3, "weight_decay": 0.2}
BAD = (
    {"b1": -1.0},
    {"b2": -1.0},
    {"eps": -1.0},
    {"weight_decay": -1.0},
    {"norm": "l3"},
)

CASES = [
    Case(
        optimizers.adamr,
        kind="transform",
        hyper={"learning_rate": 0.1, **HYPER},
        static={"pretrained": PRETRAINED},
        asks=("params",),
        bad=BAD,
    ),
    Case(
        optimizers.scale_by_adamr,
        kind="transform",
        hyper=HYPER,
        static={"pretrained": PRETRAINED, "norm": "l1"},
        asks=("params",),
        bad=BAD,
        name="l1",
    ),
]
