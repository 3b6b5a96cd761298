"""Data by meta-gradient: a batch's weights are free; what takes functions is not."""

from jaxtricks import metagrad, weighting
from tests.case import Case
from tests.inputs import losses

FILES = {
    "test_magic.py": (metagrad.linear_datamodeling_score, metagrad.magic),
    "test_mgd.py": (metagrad.key_points, metagrad.mgd, metagrad.relax_counts),
    "test_datarater.py": (
        metagrad.datarater,
        metagrad.topk_batch_filter,
        metagrad.topk_keep_probability,
    ),
    "test_shift.py": (
        metagrad.importance_weighted_value,
        metagrad.input_derivative_sensitivity,
        metagrad.shift_shapley,
    ),
}

CASES = [
    Case(
        metagrad.datarater_weights,
        losses,
        coupled=True,
        limits=[
            ("tilted, at 1", lambda x: weighting.tilted(x, t=1.0), {}),
        ],
    ),
    *(
        Case(fn, kind="own", tests=f"tests/metagrad/{file}")
        for file, functions in FILES.items()
        for fn in functions
    ),
]
