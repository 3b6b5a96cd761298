"""Changes each literal and operator of a trick in turn and asks whether a test notices.

    python -m tests.mutate [FAMILY ...] [--module NAME] [--list]

A mutant is one changed number, operator or default in a module of the family; it is
caught when a golden row, a free check or the case's own test file fails. What survives
is listed with its line. Exit status 1 if a module catches less than 95 %.
"""

import argparse
import ast
import contextlib
import copy
import importlib.abc
import importlib.util
import inspect
import io
import os
import pathlib
import re
import signal
import sys
import time
import types
from collections.abc import Callable
from functools import partial

os.environ["JAXTRICKS_MUTATE"] = "1"
import conftest  # noqa: F401, I001
import jax
import pytest

from tests.case import Case, cases, families, rows
from tests.free import CHECKS, REMEMBERED
from tests.test_tricks import assert_golden

WANTED = 0.95
FAILURES = (Exception, pytest.fail.Exception)  # which is none of Exception's
SWAPS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


# --- making mutants -------------------------------------------------------------------


def sites(tree: ast.Module) -> list[ast.AST]:
    """The numbers and operators of the formulas: not of annotations or of checks."""
    found = []

    def visit(node):
        if isinstance(node, ast.Raise) or _is_check(node):
            return
        if isinstance(node, ast.keyword) and node.arg == "strict":
            return  # of zip: the lengths are equal anyway
        if isinstance(node, ast.keyword) and node.arg == "axis":  # -1 of rows is 1
            node = getattr(node.value, "operand", node)
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child)
        if isinstance(node, ast.Constant):
            if isinstance(node.value, bool | int | float):
                found.append(node)
        elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
            found.extend([node] * (type(node.op) in SWAPS))
        elif isinstance(node, ast.Compare) or (
            isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.UAdd)
        ):
            found.append(node)

    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            visit(node)
    return found


def _is_check(node: ast.AST) -> bool:
    """A statement that only validates: check.above(...), or an if that only raises."""
    if isinstance(node, ast.If):
        return all(isinstance(child, ast.Raise) for child in node.body + node.orelse)
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        return False
    called = node.value.func
    name = called.attr if isinstance(called, ast.Attribute) else called.id
    return name in ("at_least", "above", "between", "one_of") or "check" in name


def mutate(node: ast.AST) -> str:
    """Changes the node in place and says how."""
    if isinstance(node, ast.Constant):
        before = node.value
        if isinstance(before, bool):
            node.value = not before
        else:
            node.value = before + 1 if isinstance(before, int) else before * 1.5 or 1.0
        return f"{before} -> {node.value}"
    if isinstance(node, ast.UnaryOp):  # applied twice it is gone
        node.operand = ast.UnaryOp(node.op, node.operand)
        return f"{type(node.op).__name__} dropped"
    before = node.ops[0] if isinstance(node, ast.Compare) else node.op
    after = SWAPS[type(before)]()
    if isinstance(node, ast.Compare):
        node.ops[0] = after
    else:
        node.op = after
    return f"{type(before).__name__} -> {type(after).__name__}"


def mutants(source: str):
    """(line, what changed, source of the changed module) for every site."""
    tree = ast.parse(source)
    for index in range(len(sites(tree))):
        changed = copy.deepcopy(tree)
        node = sites(changed)[index]
        line = node.lineno
        what = mutate(node)
        yield line, what, ast.unparse(ast.fix_missing_locations(changed))


class _FromText(importlib.abc.InspectLoader):
    """Loads a module from changed source."""

    def __init__(self, source: str):
        self.source = source

    def get_source(self, fullname):
        del fullname
        return self.source


@contextlib.contextmanager
def planted(module: types.ModuleType, source: str):
    """The module's functions running the mutant's code, identities unchanged."""
    spec = importlib.util.spec_from_loader(module.__name__, _FromText(source))
    mutant = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mutant)
    kept = []
    for name, old in vars(module).items():
        old = inspect.unwrap(old) if callable(old) else old  # of jax.jit
        if inspect.isfunction(old) and old.__module__ == module.__name__:
            new = inspect.unwrap(getattr(mutant, name))
            kept.append((old, old.__code__, old.__defaults__, old.__kwdefaults__))
            old.__code__ = new.__code__
            old.__defaults__, old.__kwdefaults__ = new.__defaults__, new.__kwdefaults__
    forget()
    try:
        yield
    finally:
        for old, *before in kept:
            old.__code__, old.__defaults__, old.__kwdefaults__ = before
        forget()


def forget() -> None:
    """Drops everything traced or remembered with another mutant's code."""
    ours = [name for name in sys.modules if name.startswith("jaxtricks")]
    held = [value for name in ours for value in vars(sys.modules[name]).values()]
    for remembered in (*REMEMBERED, *held):
        if hasattr(remembered, "cache_clear"):
            remembered.cache_clear()
    jax.clear_caches()


# --- running them ---------------------------------------------------------------------


@contextlib.contextmanager
def limited(seconds: int = 120):
    """A mutant that runs on for ever is caught."""

    def late(signum, frame):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


Test = tuple[str, Callable[[], object]]


def tests_of(all_cases: list[Case], all_rows) -> list[Test]:
    """What may notice a mutant, cheap ones first."""
    found = [(f"golden {row.id}", partial(assert_golden, row)) for row in all_rows]
    for case in all_cases:
        for check in CHECKS[case.kind]:
            found.append((f"{case.id} {check.__name__}", partial(check, case)))
    for path in sorted({case.tests for case in all_cases if case.tests}):
        found.append((path, partial(_pytest, path)))
    return found


def _pytest(path: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        # Plain asserts: rewriting warns of what this process has imported already.
        options = ["-x", "-q", "--assert=plain", "-p", "no:cacheprovider"]
        assert not pytest.main([*options, "--timeout=240", path])


def caught(tests: list[Test]) -> str:
    """The first test that fails, or nothing; that one is tried first from now on,
    because what notices a mutant often notices the next."""
    for i, (name, test) in enumerate(tests):
        try:
            with limited(300 if name.endswith(".py") else 120):
                test()
        except FAILURES:
            tests.insert(0, tests.pop(i))
            return name
    return ""


def modules(family: str) -> list[types.ModuleType]:
    """The files of a family that hold functions."""
    package = importlib.import_module(f"jaxtricks.{family}")
    folder = pathlib.Path(package.__file__)
    if folder.name != "__init__.py":
        return [package]
    names = sorted(path.stem for path in folder.parent.glob("_*.py"))
    return [
        importlib.import_module(f"jaxtricks.{family}.{name}")
        for name in names
        if name != "__init__"
    ]


def users(module: types.ModuleType) -> set[str]:
    """The module and those of its family that build on it, by their imports."""
    beside = {m.__name__: m for m in modules(module.__name__.split(".")[1])}
    found = {module.__name__}
    while True:
        more = {
            name
            for name, other in beside.items()
            if any(
                re.search(rf"from \.{used.rpartition('.')[2]} import", _source(other))
                for used in found
            )
        }
        if more <= found:
            return found
        found |= more


def _source(module: types.ModuleType) -> str:
    return pathlib.Path(module.__file__).read_text()


def report(family: str, module: types.ModuleType, only_list: bool) -> bool:
    """Runs a module's mutants, prints what survives, says if enough are caught."""
    own = {module.__name__}
    if not any(case.fn.__module__ in own for case in cases(family)):
        own = users(module)  # a block that others share
    all_cases = [case for case in cases(family) if case.fn.__module__ in own]
    all_rows = [row for row in rows(family) if row.fn.__module__ in own]
    name = module.__name__.removeprefix("jaxtricks.")
    source = _source(module)
    survivors, total, start = [], 0, time.perf_counter()
    tests = tests_of(all_cases, all_rows)
    failed = "" if only_list else caught(tests)
    assert not failed, f"{name}: fails without a mutant: {failed}"
    for line, what, changed in mutants(source):
        total += 1
        if only_list:
            print(f"{name}:{line}: {what}")
            continue
        with planted(module, changed):
            if not caught(tests):
                survivors.append((line, what))
                print(f"  survives: {name}:{line}: {what}", flush=True)
    if only_list or not total:
        return True
    share = 1 - len(survivors) / total
    seconds = time.perf_counter() - start
    counts = f"{total - len(survivors)}/{total}"
    print(f"{name}: {counts} caught ({share:.1%}) in {seconds:.0f} s", flush=True)
    return share >= WANTED


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("family", nargs="*", help="families; all of them by default")
    parser.add_argument(
        "--module", default="", help="only modules with this in the name"
    )
    parser.add_argument("--list", action="store_true", help="list mutants, run nothing")
    arguments = parser.parse_args()
    good = [
        report(family, module, arguments.list)
        for family in arguments.family or families()
        for module in modules(family)
        if arguments.module in module.__name__
    ]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
