"""The kernels, one line a setting, by what they compute."""

from jaxtricks import kernels
from tests.case import Case
from tests.kernels import (
    cases_attention,
    cases_cross_entropy,
    cases_norms,
    cases_softmax,
    cases_statistics,
)

CASES = [
    *cases_cross_entropy.CASES,
    *cases_statistics.CASES,
    *cases_softmax.CASES,
    *cases_norms.CASES,
    *cases_attention.CASES,
    Case(
        kernels.supported,
        kind="own",
        tests="tests/kernels/test_implementations.py",
    ),
]
