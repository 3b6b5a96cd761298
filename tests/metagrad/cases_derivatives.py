"""The derivative rules take functions, so that their tests are their own."""

import numpy as np

from jaxtricks import metagrad
from tests.case import Case, Inputs
from tests.inputs import rng

FILES = {
    "test_mixed.py": (metagrad.mixed,),
    "test_truncated.py": (metagrad.truncated,),
    "test_implicit.py": (metagrad.implicit,),
    "test_evolution.py": (metagrad.es, metagrad.pes, metagrad.finite_difference),
    "test_hypergradient.py": (
        metagrad.hypergradient,
        metagrad.multi_step,
        metagrad.unroll,
    ),
    "test_maml.py": (
        metagrad.inner_adapt,
        metagrad.interpolate_tasks,
        metagrad.maml,
        metagrad.task_landscape,
    ),
    "test_storm.py": (
        metagrad.preserve_sum,
        metagrad.storm,
        metagrad.storm_features,
        metagrad.storm_memory,
        metagrad.storm_weights,
    ),
    "test_trilateral.py": (
        metagrad.class_predictions,
        metagrad.trilateral_geometry,
    ),
    "test_self_tuning.py": (
        metagrad.best_response_linear,
        metagrad.perturb_hyper,
        metagrad.perturbation_entropy,
        metagrad.stn,
    ),
}


def _distilled(batch):
    r = rng(97)
    logits = r.normal(size=(2, *batch, 4)).astype(np.float32)
    ratio = r.uniform(0.1, 0.9, size=batch).astype(np.float32)
    return *logits, r.integers(0, 4, size=batch), ratio


def _edges():
    logits, teacher, labels, ratio = _distilled((8,))
    return {
        "large": (1e4 * logits, 1e4 * teacher, labels, ratio),
        "zero": (0 * logits, 0 * teacher, labels, 0 * ratio),
        "the same": (logits, logits, labels, ratio),
        "one ruled out": (
            logits,
            np.where(np.arange(4) == 3, -np.inf, teacher),
            0 * labels,
            ratio,
        ),
    }


CASES = [
    Case(
        metagrad.fused_distillation,
        Inputs(_distilled, (True,) * 4, _edges, labels=2),
        {"temperature": 4.0},
        bad=({"temperature": 0},),
        bf16_rtol=1e-4,
    ),
    *(
        Case(fn, kind="own", tests=f"tests/metagrad/{file}")
        for file, functions in FILES.items()
        for fn in functions
    ),
]
