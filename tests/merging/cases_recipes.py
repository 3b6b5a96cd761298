import numpy as np

from jaxtricks import merging
from tests.case import Case

COEFFICIENTS = np.array([0.2, 0.7, 0.4], np.float32)


def _base(base, trees):
    return base


def _first(base, trees):
    return trees[0]


def own(name, *fns):
    return [Case(fn, kind="own", tests=f"tests/merging/test_{name}.py") for fn in fns]


CASES = [
    Case(
        merging.tsv,
        kind="merge",
        hyper={"scale": 0.7},
        limits=(("scale=0 is the base", _base, {"scale": 0.0}),),
    ),
    Case(
        merging.tsv,
        kind="merge",
        hyper={"scale": 0.7},
        static={"rank": "full"},
        name="full",
    ),
    Case(
        merging.iso,
        kind="merge",
        hyper={"scale": 0.7},
        limits=(("scale=0 is the base", _base, {"scale": 0.0}),),
        bad=({"common": 1.5}, {"common": -0.1}),
    ),
    Case(
        merging.iso,
        kind="merge",
        hyper={"scale": 0.7},
        static={"common": 0.3},
        name="cts",
    ),
    Case(
        merging.adamerging,
        kind="merge",
        hyper={"coefficients": COEFFICIENTS},
        limits=(
            ("0 is the base", _base, {"coefficients": np.zeros(3, np.float32)}),
            ("one 1 is that tree", _first, {"coefficients": np.float32([1, 0, 0])}),
        ),
        bad=({"coefficients": np.ones(2, np.float32)},),
    ),
    Case(
        merging.self_position,
        kind="merge",
        hyper={"logits": COEFFICIENTS, "scale": 0.8},
        limits=(
            ("scale=0 is the base", _base, {"scale": 0.0}),
            (
                "a large logit is that tree",
                _first,
                {"logits": np.float32([1e4, 0, 0]), "scale": 1.0},
            ),
        ),
        bad=({"logits": np.ones(2, np.float32)},),
    ),
    *own("matrices", merging.tsv_leaf, merging.iso_leaf),
    *own("knots", merging.knots),
    *own("matrices", merging.extract_lora, merging.fold_lora),
    *own("fisher", merging.fisher, merging.fisher_leaf, merging.fisher_diagonal),
    *own("regmean", merging.regmean, merging.regmean_leaf, merging.gram),
    *own("adamerging", merging.fit_coefficients),
    *own("darex", merging.darex_q, merging.darex_rescale),
    *own("signature", merging.robust_weight_signature, merging.patch_weights),
    *own("wise_ft", merging.wise_ft, merging.overconfidence),
    *own("wise_ft", merging.calibrated_ensemble, merging.confidence_temperature),
    *own("wise_ft", merging.false_false_true),
    *own("neon", merging.neon, merging.neon_alignment),
    *own("soups", merging.greedy_soup),
    *own("soups", merging.metrics_weighted, merging.metric_weights),
    *own("averages", merging.ema, merging.swa, merging.lawa),
    *own("soups", merging.assemble_modules),
]
