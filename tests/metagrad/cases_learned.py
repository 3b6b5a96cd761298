"""Learned optimizers as transformations; what else is learned has its own tests."""

import numpy as np

from jaxtricks import metagrad
from tests.case import Case, Inputs
from tests.inputs import rng
from tests.metagrad.learned import MLP, VELO, single

OPTIMIZER = "tests/metagrad/test_learned_optimizer.py"
FILES = {
    "test_learned_optimizer.py": (
        metagrad.init_learned_optimizer,
        metagrad.init_velo,
        metagrad.scale_by_mup,
    ),
    "test_in_context.py": (
        metagrad.caml_sequence,
        metagrad.gpicl_loss,
        metagrad.gpicl_tasks,
        metagrad.simplex_etf,
    ),
    "test_optimal_transport.py": (
        metagrad.dual_potential,
        metagrad.meta_ot,
        metagrad.sinkhorn_dual,
        metagrad.sinkhorn_potentials,
    ),
    "test_adaptable_models.py": (
        metagrad.camel_adapt,
        metagrad.camel_head,
        metagrad.init_siren,
        metagrad.siren,
    ),
}
MULTS = {"exp_mult": 0.1, "step_mult": 0.5}


def _residuals(batch):
    drawn = rng(91, *batch).uniform(0.2, 3, size=(*batch, 6)).astype(np.float32)
    return (np.sort(drawn, axis=-1)[..., ::-1].copy(),)


def _edges():
    r = _residuals((8,))[0]
    return {"zero": (0 * r,), "large": (1e4 * r,), "never": (r + 10,)}


CASES = [
    Case(
        metagrad.learned_optimizer,
        kind="transform",
        tests=OPTIMIZER,
        static={"meta": single(MLP)},
        hyper=MULTS,
        asks=("params",),
    ),
    Case(
        metagrad.velo,
        kind="transform",
        tests=OPTIMIZER,
        static={"meta": single(VELO), "total_steps": 20},
        hyper=MULTS,
        asks=("params", "value"),
    ),
    Case(
        metagrad.iteration_count,
        Inputs(_residuals, (True,), _edges),
        {"tolerance": 1.0, "sharpness": 5.0},
        bad=({"sharpness": 0},),
        bf16_rtol=1e-4,
    ),
    *(
        Case(fn, kind="own", tests=f"tests/metagrad/{file}")
        for file, functions in FILES.items()
        for fn in functions
    ),
]
