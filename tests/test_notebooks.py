"""Each notebook is its percent script, cell by cell, and carries no output."""

import pathlib

import jupytext
import pytest

FOLDER = pathlib.Path(__file__).parent.parent / "notebooks"
SCRIPTS = sorted(FOLDER.glob("*.py"))


def test_there_are_notebooks():
    assert SCRIPTS
    assert [p.stem for p in SCRIPTS] == sorted(p.stem for p in FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("script", SCRIPTS, ids=[p.stem for p in SCRIPTS])
def test_notebook_is_its_script(script):
    want = jupytext.read(script).cells
    cells = jupytext.read(script.with_suffix(".ipynb")).cells
    assert [(c.cell_type, c.source) for c in cells] == [
        (c.cell_type, c.source) for c in want
    ], f"run: jupytext --sync {script}"
    assert not any(c.get("outputs") or c.get("execution_count") for c in cells)
