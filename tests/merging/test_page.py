"""docs/merging.md: its examples run, its names exist, its table is of all functions."""

import contextlib
import io
import re

from jaxtricks import _cli, merging
from tests.merging import page
from tests.merging.files.small import llama, load, save

TEXT = page.PAGE.read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_table_is_of_all_functions():
    assert page.written() == page.table(), "python -m tests.merging.page writes it"
    named = {row[0].strip("`") for row in page.rows()}
    leaves = {f"{row[0].strip('`')}_leaf" for row in page.rows() if row[2]}
    assert named | leaves == set(merging.__all__)


def test_every_name_on_the_page_is_public():
    named = set(re.findall(r"(?<!benchmarks\.)\bmerging\.(\w+)", TEXT))
    assert len(named) > 40
    assert named <= {*merging.__all__, "files", "NAME_leaf", "page"}


def test_the_examples_run(tmp_path, monkeypatch):
    """The recipe as it stands, on small checkpoints; the commands but the last."""
    monkeypatch.chdir(tmp_path)
    base = llama(0)
    for name, found in (("base", base), ("math", llama(1, base)), ("code", base)):
        save(tmp_path / name, found)
    (recipe,) = blocks("yaml")
    (tmp_path / "ties.yml").write_text(recipe)
    names: dict = {}
    for block in blocks("python"):
        exec(block, names)
    assert names["merged"]["w"][0, 1] == 1.0
    assert names["losses"].shape == (25,)
    assert set(load(tmp_path / "merged")) == set(base)
    (commands,) = blocks("sh")
    for line in commands.splitlines():
        words = line.partition("#")[0].split()[1:]
        if words[0] == "merge":
            with contextlib.redirect_stdout(io.StringIO()):
                assert _cli.main([*words, "--overwrite"]) == 0
