import jax
import jax.numpy as jnp
import numpy as np

from jaxtricks import merging
from tests.case import Case

WEIGHTS = np.array([0.5, 1.0, 0.25], np.float32)
OTHER_SIZE = ({"weights": np.ones(2, np.float32)},)


def _base(base, trees):
    return base


def _first(base, trees):
    return trees[0]


def _mean(base, trees):
    def leaf(*xs):
        return sum(xs) / len(xs) if jnp.issubdtype(xs[0].dtype, jnp.floating) else xs[0]

    return jax.tree.map(leaf, *trees)


CASES = [
    Case(
        merging.linear,
        kind="merge",
        hyper={"weights": WEIGHTS},
        limits=(
            ("equal weights are the mean", _mean, {"weights": np.ones(3, np.float32)}),
            ("one weight is one model", _first, {"weights": np.float32([2, 0, 0])}),
        ),
        bad=OTHER_SIZE,
    ),
    Case(
        merging.ties,
        kind="merge",
        hyper={"weights": WEIGHTS, "density": 0.6, "scale": 0.8},
        smooth=("weights", "scale"),
        limits=(
            ("density=0 is the base", _base, {"density": 0.0}),
            ("scale=0 is the base", _base, {"scale": 0.0}),
        ),
        bad=(*OTHER_SIZE, {"density": 1.5}, {"density": -0.1}, {"density": [0.5]}),
    ),
    Case(
        merging.ties,
        kind="merge",
        hyper={"weights": WEIGHTS, "density": np.float32([0.3, 0.9, 0.6])},
        static={"scope": "global", "sign": "frequency", "normalize": True},
        smooth=("weights",),
        bad=(
            *OTHER_SIZE,
            {"scope": "layer"},
            {"sign": "mean"},
            {"density": np.ones(2, np.float32)},
        ),
        name="global",
    ),
    Case(merging.linear_leaf, kind="own", tests="tests/merging/test_linear.py"),
    Case(merging.ties_leaf, kind="own", tests="tests/merging/test_ties.py"),
    Case(merging.task_vector, kind="own", tests="tests/merging/test_task_vector.py"),
    Case(
        merging.add_task_vectors, kind="own", tests="tests/merging/test_task_vector.py"
    ),
]
