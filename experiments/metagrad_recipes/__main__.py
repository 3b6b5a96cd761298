"""The command line: names in, what they show out."""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro

from .. import pages
from ..config import BadInput, Failed, read
from ..small.tables import markdown

PROGRAM = "experiments.metagrad_recipes"
PAGE = Path(__file__).with_name("README.md")


@dataclass(frozen=True)
class Recipes:
    """Run recipes of meta-gradients, one idea of a paper each, and print what they
    show: numbers with the idea beside numbers without it. Without a name: what there
    is. Each takes about a minute on one core; nothing is written without --save.

    python -m experiments.metagrad_recipes                      what there is
    python -m experiments.metagrad_recipes hamiltonian          one
    python -m experiments.metagrad_recipes hamiltonian --quick  smaller
    python -m experiments.metagrad_recipes --all --save         README.md anew
    """

    names: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="NAME...")
    ] = ()
    """Of the list that comes without a name."""
    all: bool = False
    """Every one of them."""
    quick: bool = False
    """Fewer rounds: to see that it works, not what it shows."""
    save: bool = False
    """Put the table into this folder's README.md, too."""


class Recipe(NamedTuple):
    """A module here, as its docstrings tell of it."""

    name: str
    title: str
    source: str
    shows: str
    run: Callable[..., dict[str, float]]


def names() -> list[str]:
    """Every module here that is a recipe."""
    found = [
        module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])
    ]
    return sorted(name for name in found if name != "__main__")


def recipe(name: str) -> Recipe:
    module = importlib.import_module(f".{name}", __package__)
    doc = " ".join((module.__doc__ or "").split())
    about, source = doc.split("Source: ", 1)
    title = about.split(". ", 1)[0].rstrip(". ")
    shows = " ".join((inspect.getdoc(module.run) or "").split())
    return Recipe(name, title, source, shows, module.run)


def table(found: dict[str, float], name: str) -> str:
    """What was measured, a line each."""
    cells = [[what, f"{value:.4g}"] for what, value in found.items()]
    return markdown([name, "value"], cells)


def block(of: Recipe, found: dict[str, float]) -> str:
    """What README.md says of it."""
    parts = [f"### {of.name}", f"{of.title}.", of.shows, table(found, of.name)]
    return "\n\n".join([*parts, f"Source: {of.source}"])


def parse(argv: list[str]) -> Recipes:
    flags = read(Recipes, argv, f"python -m {PROGRAM}")
    known = names()
    for name in flags.names:
        if name not in known:
            raise BadInput(f"NAME: wanted one of {', '.join(known)}, came {name}")
    if flags.names and flags.all:
        raise BadInput("--all: wanted without a NAME, came with one")
    if flags.save and flags.quick:
        raise BadInput("--save: wanted without --quick, came with it")
    if (flags.save or flags.quick) and not (flags.names or flags.all):
        raise BadInput("NAME: wanted one or --all, came none")
    return flags


def run(flags: Recipes) -> None:
    if not (flags.names or flags.all):
        for name in names():
            print(f"{name}: {recipe(name).title}")
    for name in names() if flags.all else flags.names:
        of = recipe(name)
        print(f"{of.title}. {of.shows}\n", flush=True)
        found = of.run(quick=flags.quick)
        print(f"{table(found, name)}\n", flush=True)
        if flags.save:
            pages.insert(PAGE, f"{PROGRAM} {name}", block(of, found))


def main(argv: list[str]) -> int:
    """0, 1 where README.md cannot be written, 2 for bad input."""
    try:
        run(parse(argv))
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Failed as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
