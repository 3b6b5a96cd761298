"""The paper table: its grammar, and that every public docstring keeps to it."""

import ast
import csv
import importlib
import pathlib
import re
import textwrap

import pytest

import jaxtricks
from jaxtricks import catalogue

ENTRIES = catalogue.entries()
FUNCTIONS = [e for e in ENTRIES if isinstance(e.node, ast.FunctionDef)]
each_function = pytest.mark.parametrize("entry", FUNCTIONS, ids=lambda e: e.name)


def entry(source):
    """A function whose docstring ends in these sources."""
    doc = f"Does it.\n\nSource: {source}\nExample:\n  >>> 1\n  1"
    node = ast.parse("def f(): ...").body[0]
    return catalogue.Entry("losses.f", "f()", doc, node)


def titles():
    """Title -> arXiv id, "" where it is not known."""
    path = pathlib.Path(__file__).parent / "papers.tsv"
    with path.open(encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {row["title"]: row["arxiv"] for row in rows}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            'Lin et al., "Focal Loss", 2017, arXiv:1708.02002, eq. 4. Differs: none.',
            [("Lin et al.", "Focal Loss", "2017", "1708.02002", "eq. 4")],
        ),
        ('Hu, "Two\n  Lines", 2015.', [("Hu", "Two Lines", "2015", "", "")]),
        (
            'Abe, Ito, "One; Two", 2020, the "upper" one; definition; '
            "Bo, \"'Q'\", 1999, arXiv:cs/0102003, table 2; eq. 3",
            [
                ("Abe, Ito", "One; Two", "2020", "", 'the "upper" one'),
                ("Bo", "'Q'", "1999", "cs/0102003", "table 2"),
            ],
        ),
        (
            'Wu et al., ""Why?": A, B", 2022, arXiv:2210.10769.',
            [("Wu et al.", '"Why?": A, B', "2022", "2210.10769", "")],
        ),
        ("definition.", []),
        ("see `linear`.", []),
    ],
)
def test_source_grammar(source, expected):
    assert [tuple(paper) for paper in entry(source).papers] == expected


@pytest.mark.parametrize(
    "source",
    [
        'Lin et al., "Focal Loss", arXiv:1708.02002.',
        'Lin et al., "Focal Loss", 2017, arXiv:1708.2.',
        'Lin et al., "Focal Loss", 2017, arXiv 1708.02002, arXiv:1708.02002.',
        "Lin et al., Focal Loss, 2017, arXiv:1708.02002.",
        '"Focal Loss", 2017.',
        'Lin, "A", 2017, arXiv:1708.02002, Hu, "B", 2018.',
        'Hu, "B", 2018; Lin, "A".',
        "",
        "Differs: none.",
    ],
)
def test_an_ill_formed_source_is_an_error_that_names_the_function(source):
    with pytest.raises(ValueError, match=r"losses\.f"):
        _ = entry(source).papers


def test_summary_is_the_first_sentence():
    doc = "Does it, e.g. so,\nwell. Batch-coupled.\n\nMore."
    assert entry("x")._replace(doc=doc).summary == "Does it, e.g. so, well."


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A made-up library with every way of making a name public."""
    files = {
        "__init__.py": """
            __all__ = ["lazy", "one"]
            if TYPE_CHECKING:
                from . import lazy, one
            """,
        "one.py": """
            from .lazy import merge
            from .lazy._deep import inner as renamed
            __all__ = ["Memory", "f", "merge", "renamed"]
            class Memory(NamedTuple):
                "What f remembers."
                mean: Array  # f32[]
            @decorated
            def f(
                x: int,
                *,
                y: float = 2.0,
            ) -> int:
                "F."
            """,
        "lazy/__init__.py": """
            __all__ = ["files", "merge"]
            if TYPE_CHECKING:
                from . import files
                from ._merge import merge
            else:
                def __getattr__(name): ...
            """,
        "lazy/_merge.py": "def merge(trees):\n    'M.'",
        "lazy/_deep/__init__.py": "from ._er import inner",
        "lazy/_deep/_er.py": "def inner():\n    'I.'",
        "lazy/files.py": "__all__ = ['load']\ndef load(path):\n    'L.'",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    monkeypatch.setattr(catalogue, "_ROOT", tmp_path)
    return tmp_path


def test_names_are_found_however_they_are_imported(library):
    found = {e.name: e for e in catalogue.entries()}
    assert list(found) == [
        *("lazy.files.load", "lazy.merge"),
        *("one.Memory", "one.f", "one.merge", "one.renamed"),
    ]
    assert found["one.f"].signature == (
        "f(\n    x: int,\n    *,\n    y: float = 2.0,\n) -> int"
    )
    assert found["one.renamed"].doc == "I."
    assert found["one.Memory"].papers == []
    assert found["one.Memory"].signature == (
        "class Memory(NamedTuple):\n    mean: Array  # f32[]"
    )
    assert [e.name for e in catalogue.entries("lazy")] == list(found)[:2]


def test_a_name_that_nothing_defines_is_an_error(library):
    (library / "one.py").write_text("__all__ = ['g']")
    with pytest.raises(LookupError, match=r"one\.py: .* g,"):
        catalogue.entries("one")


def test_it_reads_what_an_import_gives():
    public = {
        f"{family}.{name}": getattr(
            importlib.import_module(f"jaxtricks.{family}"), name
        )
        for family in jaxtricks.__all__
        for name in importlib.import_module(f"jaxtricks.{family}").__all__
    }
    read = {e.name: e.node.name for e in ENTRIES}
    assert read == {name: found.__name__ for name, found in public.items()}


def test_all_lists_are_sorted():
    for family in jaxtricks.__all__:
        names = importlib.import_module(f"jaxtricks.{family}").__all__
        assert list(names) == sorted(set(names)), family
    assert jaxtricks.__all__ == sorted(jaxtricks.__all__)


@each_function
def test_docstring_has_its_sections_in_order(entry):
    sections = list(entry.sections)
    has_parameters = bool(_parameters(entry.node))
    wanted = [s for s in catalogue.SECTIONS if s != "Args" or has_parameters]
    # A function that refuses nothing has nothing to say under Raises.
    assert sections == [s for s in wanted if s != "Raises" or s in sections]


@each_function
def test_every_parameter_is_explained(entry):
    args = entry.sections.get("Args", "")
    named = re.findall(r"^  ([*\w]+(?:, [*\w]+)*):", args, re.M)
    explained = [name.strip("*") for names in named for name in names.split(", ")]
    assert explained == _parameters(entry.node)


@each_function
def test_what_is_cited_is_spelled_as_its_paper_is(entry):
    known = titles()
    by_arxiv = {arxiv: title for title, arxiv in known.items() if arxiv}
    by_letters = {_letters(title): title for title in known}
    for paper in entry.papers:
        title = by_letters.get(_letters(paper.title), paper.title)
        assert paper.title == by_arxiv.get(paper.arxiv, title)
        assert paper.arxiv == (known.get(paper.title) or paper.arxiv)
        assert "Differs:" in entry.sections["Source"]


def test_a_paper_is_cited_alike_everywhere():
    cited = {p[:4] for e in ENTRIES for p in e.papers}
    assert len({title for _, title, _, _ in cited}) == len(cited), sorted(cited)


def test_papers_are_sorted_and_each_stands_once():
    table = catalogue.served(ENTRIES)
    found = [paper.title for paper, _ in table]
    assert found == sorted(found, key=str.casefold)
    assert len(set(found)) == len(found)
    pairs = {(paper.title, name) for paper, names in table for name in names}
    assert pairs == {(p.title, e.name) for e in ENTRIES for p in e.papers}


def _parameters(node: ast.FunctionDef) -> list[str]:
    args = node.args
    stars = [a for a in (args.vararg, args.kwarg) if a is not None]
    return [a.arg for a in [*args.posonlyargs, *args.args, *args.kwonlyargs, *stars]]


def _letters(title: str) -> str:
    return re.sub(r"[\W_]", "", title).casefold()
