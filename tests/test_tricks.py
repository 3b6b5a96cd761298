"""Every case through its free checks, every golden row, and what is missing."""

import importlib
import pathlib

import jax
import numpy as np
import pytest

import jaxtricks
from jaxtricks import catalogue
from tests.case import Case, Golden, cases, families, rows
from tests.free import CHECKS, REMEMBERED

ROOT = pathlib.Path(__file__).parent.parent
ALL_CASES = [case for family in families() for case in cases(family)]
ALL_ROWS = [row for family in families() for row in rows(family)]


# Plain XLA, and long to compile: as slow, these run on one interpreter.
SLOW = {
    "hybrid_window_linear_attention",
    "hybrid_window_linear_attention_step",
    "long_short_attention",
}
# What another jax may change; of all other checks one interpreter is enough. Of a
# function of single examples a golden row is.
ANEW = {"meshes", "collectives", "masked_and_partition", "in_optax"}


def _marks(family: str, fn, group: str, once: bool = False):
    # One worker runs all checks of a case, so that they share what is compiled.
    marks = [pytest.mark.xdist_group(group)]
    if once or fn.__name__ in SLOW:
        return [*marks, pytest.mark.slow]
    return [*marks, pytest.mark.kernels] if family == "kernels" else marks


def _checks():
    for case in ALL_CASES:
        family = case.id.split(".")[0]
        anew = ANEW if case.coupled or case.kind != "batch" else set()
        anew = ANEW | {"derivatives"} if family == "kernels" else anew
        for check in CHECKS[case.kind]:
            marks = _marks(family, case.fn, case.id, check.__name__ not in anew)
            name = f"{case.id}-{check.__name__}"
            yield pytest.param(case, check, id=name, marks=marks)


def _rows():
    seen = set()
    for row in ALL_ROWS:
        family = row.id.split(".")[0]
        # Another jax has to give one number of a function, if it is no kernel.
        once = family != "kernels" and row.fn in seen
        seen.add(row.fn)
        marks = _marks(family, row.fn, f"{family} golden", once)
        yield pytest.param(row, id=row.id, marks=marks)


@pytest.fixture(scope="session")
def _seen():
    return set()


@pytest.fixture
def fresh(case, _seen):
    """Compiled programs of cases that are done would fill the memory."""
    _seen.add(case.id)
    if len(_seen) > 20:
        _seen.clear()
        for remembered in REMEMBERED:
            remembered.cache_clear()
        jax.clear_caches()


@pytest.mark.parametrize(("case", "check"), list(_checks()))
@pytest.mark.usefixtures("fresh")
def test_free(case, check):
    check(case)


@pytest.mark.parametrize("row", list(_rows()))
def test_golden(row):
    assert_golden(row)


def assert_golden(row: Golden) -> None:
    """The function gives the independent numbers."""
    got = np.asarray(row.pick(row.fn(*row.args, **row.kwargs)), np.float64)
    assert got.shape == np.shape(row.expect), "shape of the golden value"
    np.testing.assert_allclose(got, row.expect, rtol=row.rtol, atol=row.atol)


def missing(public: dict, all_cases: list[Case], all_rows: list[Golden]) -> list[str]:
    """What the functions (name -> function) lack: a case, a row, a paper's row."""
    papers = {entry.name: entry.papers for entry in catalogue.entries()}
    found = []
    for name, fn in public.items():
        origins = [row.origin for row in all_rows if row.fn is fn]
        if not any(case.fn is fn for case in all_cases):
            found.append(f"{name} has no case")
        if not origins:
            found.append(f"{name} has no golden row")
        for paper in papers.get(name, ()):
            wanted = f"arXiv:{paper.arxiv}" if paper.arxiv else paper.title
            if not any(wanted in origin for origin in origins):
                found.append(f"{name}: no golden row names {wanted}")
    return found


def public_functions() -> dict:
    """Every function in an `__all__`; classes are the NamedTuples of states."""
    found = {}
    for family in jaxtricks.__all__:
        module = importlib.import_module(f"jaxtricks.{family}")
        for name in module.__all__:
            if not isinstance(getattr(module, name), type):
                found[f"{family}.{name}"] = getattr(module, name)
    return found


def test_nothing_is_missing():
    assert missing(public_functions(), ALL_CASES, ALL_ROWS) == []


def test_own_tests_exist():
    for case in ALL_CASES:
        if case.kind == "own":
            text = (ROOT / case.tests).read_text()
            assert case.fn.__name__ in text, f"{case.tests} does not test {case.id}"
