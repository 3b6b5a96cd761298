"""The table of docs/merging.md, from docstrings and the recipes' methods.

`python -m tests.merging.page` writes it.
"""

import pathlib

from jaxtricks import catalogue, merging
from jaxtricks.merging.files._methods import METHODS

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "merging.md"
MARKS = ("<!-- functions -->\n", "<!-- /functions -->")
COLUMNS = ("function", "", "`_leaf`", "recipes", "paper")


def rows() -> list[tuple[str, ...]]:
    """A row for each public name; a leaf function stands with its merge."""
    public = set(merging.__all__)
    found = []
    for entry in catalogue.entries("merging"):
        name = entry.name.removeprefix("merging.")
        if name.endswith("_leaf") and name.removesuffix("_leaf") in public:
            continue
        leaf = f"{name}_leaf"
        methods = (f"`{m}`" for m, method in METHODS.items() if method.leaf == leaf)
        papers = (
            f"[{p.arxiv}](https://arxiv.org/abs/{p.arxiv})" if p.arxiv else p.title
            for p in entry.papers
        )
        found.append(
            (
                f"`{name}`",
                entry.summary,
                "yes" if leaf in public else "",
                ", ".join(methods),
                ", ".join(papers),
            )
        )
    return found


def table() -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows()]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def written() -> str:
    """The table as the page has it."""
    return PAGE.read_text().split(MARKS[0])[1].split(MARKS[1])[0]


if __name__ == "__main__":
    before, rest = PAGE.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    PAGE.write_text(before + MARKS[0] + table() + MARKS[1] + after)
