"""The console script, in a pipe and on a terminal, without jax."""

import builtins
import io
import os
import pathlib
import re
import shlex
import subprocess
import sys
import textwrap

import pytest

import jaxtricks
from jaxtricks import _cli, catalogue


def run(capsys, *argv):
    """Standard output of a command that succeeds."""
    assert _cli.main(argv) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def fail(capsys, *argv):
    """Standard error of a command that fails with status 2."""
    with pytest.raises(SystemExit) as error:
        _cli.main(argv)
    out, err = capsys.readouterr()
    assert (error.value.code, out) == (2, "")
    return err


def shell(command):
    python = shlex.quote(sys.executable)
    return subprocess.run(
        command.replace("python", python, 1),
        shell=True,
        capture_output=True,
        encoding="utf-8",
    )


def test_list(capsys):
    lines = run(capsys, "list").splitlines()
    entries = catalogue.entries()
    assert [line.split()[0] for line in lines] == ["name", *(e.name for e in entries)]
    focal = next(line for line in lines if line.startswith("losses.focal "))
    assert "Cross entropy" in focal
    assert focal.endswith("  Lin et al. 2017, arXiv:1708.02002")
    column = lines[0].index("what it does")
    assert all(line[column - 2 : column] == "  " for line in lines)
    assert all(line[column] != " " for line in lines)


def test_list_of_a_family(capsys):
    names = [line.split()[0] for line in run(capsys, "list", "reduce").splitlines()]
    assert names == ["name", "reduce.mean", "reduce.total"]


@pytest.mark.parametrize("name", ["focal", "losses.focal", "jaxtricks.losses.focal"])
def test_show(capsys, name):
    out = run(capsys, "show", name)
    assert out.startswith("jaxtricks.losses.focal\n\nfocal(\n    logits: ")
    assert "-> Float[Array" in out
    assert 'Source: Lin et al., "Focal Loss for Dense Object Detection"' in out


def test_every_name_can_be_shown(capsys):
    for entry in catalogue.entries():
        assert run(capsys, "show", entry.name).startswith(f"jaxtricks.{entry.name}\n")


def test_an_ambiguous_short_name_lists_what_it_may_mean(capsys, monkeypatch):
    one = catalogue.entries("reduce")[0]
    both = [one, one._replace(name="losses.mean")]
    monkeypatch.setattr(catalogue, "entries", lambda family=None: both)
    assert "reduce.mean, losses.mean" in fail(capsys, "show", "mean")


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (("show", "focl"), "did you mean losses.focal?"),
        (("show", "Focal"), "did you mean losses.focal"),
        (("show", "losses.focla"), "did you mean losses.focal"),
        (("show", "losses"), "losses is a family: jaxtricks list losses"),
        (("show", "zzzzzz"), "see: jaxtricks list"),
        (("list", "loses"), "did you mean losses?"),
        (("papers", "--family", "redcue"), "did you mean reduce?"),
        (("papers", "--family", "zzzzzz"), "one of calibration, kernels, losses, "),
        (("lst",), "invalid choice: 'lst'"),
    ],
)
def test_a_typo_gets_a_hint(capsys, argv, hint):
    assert hint in fail(capsys, *argv)


def test_papers(capsys):
    lines = run(capsys, "papers").splitlines()
    title = "Focal Loss for Dense Object Detection"
    focal = next(line for line in lines if line.startswith(title))
    functions = "losses.focal, weighting.focal_factor"
    assert re.split(r"  +", focal) == [title, "1708.02002", functions]
    assert len(lines) == 1 + len(catalogue.served(catalogue.entries()))


def test_papers_of_a_family(capsys):
    out = run(capsys, "papers", "--family", "losses")
    assert "losses.focal" in out
    assert "sharpness." not in out


def test_papers_as_markdown(capsys):
    lines = run(capsys, "papers", "--markdown", "--family", "losses").splitlines()
    assert lines[:2] == ["| paper | arXiv | functions |", "| --- | --- | --- |"]
    assert (
        "| Focal Loss for Dense Object Detection | "
        "[1708.02002](https://arxiv.org/abs/1708.02002) | `losses.focal` |"
    ) in lines


def test_help_teaches_with_examples(capsys):
    assert "jaxtricks papers --markdown" in run(capsys)
    for argv in (["--help"], ["show", "--help"]):
        with pytest.raises(SystemExit) as error:
            _cli.main(argv)
        assert error.value.code == 0
        assert "jaxtricks show losses.focal" in capsys.readouterr().out


def test_every_example_of_the_help_works(capsys):
    examples = re.findall(r"^  jaxtricks (.*?)(?:   .*)?$", _cli._EXAMPLES, re.M)
    assert len(examples) == 9
    for example in examples:
        if example.split()[0] not in ("merge", "average"):  # tests/merging/files
            assert run(capsys, *example.split())


def test_the_help_of_merge_teaches_recipes(capsys, tmp_path):
    from jaxtricks.merging.files import _recipe
    from jaxtricks.merging.files._methods import METHODS

    with pytest.raises(SystemExit):
        _cli.main(["merge", "--help"])
    out = capsys.readouterr().out
    assert "--dry-run" in out
    _, _, rest = out.partition("a recipe of mergekit's:\n")
    recipe, _, rest = rest.partition("\n\nmethods:\n")
    (tmp_path / "ties.yml").write_text(textwrap.dedent(recipe))
    assert list(_recipe.read(tmp_path / "ties.yml").models()) == [
        "base",
        "math",
        "code",
    ]
    methods = rest.partition("\n\n")[0].replace("\n", " ").split(",")
    assert [m.strip() for m in methods] == sorted(METHODS)


def test_version(capsys):
    with pytest.raises(SystemExit):
        _cli.main(["--version"])
    assert capsys.readouterr().out == f"jaxtricks {jaxtricks.__version__}\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_rich_draws_the_table(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    assert _cli.main(["list", "losses"]) == 0
    out = sys.stdout.getvalue()
    assert "───" in out
    assert "losses.focal" in out


def test_on_a_terminal_without_rich_the_table_is_plain(capsys, monkeypatch):
    plain = run(capsys, "papers")
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setitem(sys.modules, "rich", None)
    assert _cli.main(["papers"]) == 0
    assert sys.stdout.getvalue() == plain


def test_in_a_pipe_rich_is_not_imported(capsys, monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        assert name.partition(".")[0] != "rich"
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert "losses.focal" in run(capsys, "list")


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["list"], ["show", "focal"], ["papers"], ["merge", "--help"]],
)
def test_nothing_heavy_is_imported(argv):
    code = f"""
import sys
from jaxtricks._cli import main
try:
    main({argv})
finally:
    heavy = {{"jax", "numpy", "optax", "jaxtyping", "rich"}} & set(sys.modules)
    assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("linear" if "merge" in argv else "focal") in done.stdout


@pytest.mark.parametrize("command", ["list", "papers", "show focal", "--help"])
def test_a_reader_that_stops_early_is_not_an_error(command):
    done = shell(f"{{ python -m jaxtricks {command}; echo $? >&2; }} | true")
    assert (done.stdout, done.stderr) == ("", "0\n")


def test_module_forms_and_console_script_say_the_same(capsys):
    papers = run(capsys, "papers")
    assert shell("python -m jaxtricks papers").stdout == papers
    assert shell("python -m jaxtricks.catalogue").stdout == papers
    script = pathlib.Path(sys.executable).with_name("jaxtricks")
    done = subprocess.run([script, "papers"], capture_output=True, encoding="utf-8")
    assert done.stdout == papers


def test_a_narrow_encoding_does_not_stop_it():
    code = """
from jaxtricks import _cli, catalogue
mean = catalogue.entries("reduce")[0]._replace(doc="\u00b5")
catalogue.entries = lambda: [mean]
_cli.main(["show", "mean"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("?\n")
