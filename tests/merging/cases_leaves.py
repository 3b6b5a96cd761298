"""Merges that compute leaf by leaf: task arithmetic's family, spheres, swaps."""

import numpy as np

from jaxtricks import merging
from tests.case import Case
from tests.merging.cases import OTHER_SIZE, WEIGHTS, _base, _first

HERE = "tests/merging/test_leaves.py"
CHANCE = "tests/merging/test_chance.py"
ONE = {"weights": np.float32([2, 0, 0])}

CASES = [
    Case(
        merging.task_arithmetic,
        kind="merge",
        hyper={"weights": WEIGHTS, "scale": 0.8},
        limits=(("scale=0 is the base", _base, {"scale": 0.0}),),
        bad=OTHER_SIZE,
    ),
    Case(
        merging.task_arithmetic,
        kind="merge",
        hyper={"weights": WEIGHTS},
        static={"normalize": True},
        limits=(("one weight is one model", _first, ONE),),
        name="normalize",
    ),
    Case(
        merging.ties,
        kind="merge",
        hyper={"weights": WEIGHTS, "density": 0.6},
        static={"divisor": "count", "rescale": "l1"},
        smooth=("weights",),
        bad=({"divisor": "size"},),
        name="count",
    ),
    Case(
        merging.breadcrumbs,
        kind="merge",
        hyper={"weights": WEIGHTS, "density": 0.6, "gamma": 0.1, "scale": 0.8},
        smooth=("weights", "scale"),
        limits=(
            ("density=0 is the base", _base, {"density": 0.0}),
            ("scale=0 is the base", _base, {"scale": 0.0}),
        ),
        bad=(*OTHER_SIZE, {"density": 1.5}, {"gamma": -0.1}, {"rescale": "1/p"}),
    ),
    Case(
        merging.breadcrumbs,
        kind="merge",
        hyper={"weights": WEIGHTS, "density": np.float32([0.3, 0.9, 0.6])},
        static={"consensus": "ties", "normalize": True, "rescale": "l1"},
        smooth=("weights",),
        bad=({"consensus": "mean"},),
        name="ties",
    ),
    Case(
        merging.sce,
        kind="merge",
        hyper={"select": 0.4},
        smooth=(),
        limits=(("select=0 is the base", _base, {"select": 0.0}),),
        bad=({"select": 1.5},),
    ),
    Case(
        merging.ram,
        kind="merge",
        hyper={"r": 0.1, "alpha": 0.2, "epsilon": 0.5},
        smooth=("r", "alpha"),
        limits=(("no change counts", _base, {"epsilon": 100.0}),),
        bad=({"epsilon": -1.0},),
    ),
    Case(
        merging.multislerp,
        kind="merge",
        hyper={"weights": WEIGHTS},
        limits=(("one weight is one model", _first, ONE),),
        bad=OTHER_SIZE,
    ),
    Case(
        merging.karcher,
        kind="merge",
        hyper={"weights": WEIGHTS},
        static={"max_iter": 3},
        limits=(("one weight is one model", _first, ONE),),
        bad=(*OTHER_SIZE, {"max_iter": -1}),
    ),
    *(
        Case(fn, kind="own", tests=HERE)
        for fn in (
            merging.arcee_fusion,
            merging.arcee_fusion_leaf,
            merging.breadcrumbs_leaf,
            merging.karcher_leaf,
            merging.model_stock,
            merging.model_stock_leaf,
            merging.multislerp_leaf,
            merging.nearswap,
            merging.nearswap_leaf,
            merging.nuslerp,
            merging.nuslerp_leaf,
            merging.ram_leaf,
            merging.sce_leaf,
            merging.slerp,
            merging.slerp_leaf,
            merging.task_arithmetic_leaf,
        )
    ),
    *(
        Case(fn, kind="own", tests=CHANCE)
        for fn in (
            merging.dare,
            merging.dare_leaf,
            merging.della,
            merging.della_leaf,
        )
    ),
]
