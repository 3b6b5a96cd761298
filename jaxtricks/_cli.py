"""The console script `jaxtricks`: what the library holds, without importing jax.

It is read from the library's text by `catalogue`. Only the standard library is needed;
on a terminal, rich draws the tables where it is installed.
"""

import argparse
import difflib
import importlib.util
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from . import __version__, _cli_files, catalogue

_EXAMPLES = """\
examples:
  jaxtricks list                      every function, what it does, whose it is
  jaxtricks list losses               those of one family
  jaxtricks show focal                signature and docstring
  jaxtricks show losses.focal         the same, where a short name is not enough
  jaxtricks papers                    which function serves which paper
  jaxtricks papers --markdown         the same as a Markdown table
  jaxtricks papers --family sharpness
  jaxtricks merge ties.yml out --dry-run    what a merge of files would do
  jaxtricks average runs/train --last 5     the mean of the last checkpoints
"""

Row = tuple[str, ...]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an ASCII terminal prints ? for Greek
    try:
        try:
            args = _parsed(_parser(), argv)
            return args.run(args) or 0
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; the exit must not flush into its pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parsed(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> argparse.Namespace:
    """The arguments; OUT may stand after a flag, too.

    Of `merge CONFIG.yml --dry-run OUT`, Python 3.11 leaves OUT over.
    """
    args, more = parser.parse_known_args(argv)
    if getattr(args, "out", "") is None and more and not more[0].startswith("-"):
        args.out = more.pop(0)
    if more:
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "jaxtricks",
        description="Looks up the training tricks that jaxtricks holds; merges files.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"jaxtricks {__version__}"
    )
    parser.set_defaults(run=lambda _: parser.print_help())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    listing = _command(commands, "list", "functions: name, one line, paper")
    listing.add_argument("family", nargs="?", metavar="FAMILY", help=_families())
    listing.set_defaults(run=_list)

    showing = _command(commands, "show", "one function: signature and docstring")
    showing.add_argument("name", metavar="NAME", help="such as focal or losses.focal")
    showing.set_defaults(run=_show)

    papers = _command(commands, "papers", "papers and the functions that serve them")
    papers.add_argument("--markdown", action="store_true", help="as Markdown")
    papers.add_argument("--family", metavar="F", help=_families())
    papers.set_defaults(run=_papers)
    _cli_files.add(commands, _command)
    return parser


def _command(
    commands, name: str, what: str, description: str = "", more: str = ""
) -> argparse.ArgumentParser:
    lines = [x for x in _EXAMPLES.splitlines() if x.startswith(f"  jaxtricks {name}")]
    return commands.add_parser(
        name,
        help=what,
        description=description or f"Prints {what}.",
        epilog="\n".join(["examples:", *lines, *more.splitlines()]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _families() -> str:
    return "one of " + ", ".join(catalogue.families())


def _list(args: argparse.Namespace) -> None:
    rows = [
        (entry.name, entry.summary, "; ".join(map(_cite, entry.papers)))
        for entry in _entries(args.family)
    ]
    _table(("name", "what it does", "paper"), rows)


def _show(args: argparse.Namespace) -> None:
    wanted = args.name.removeprefix("jaxtricks.")
    entries = catalogue.entries()
    found = [e for e in entries if wanted in (e.name, e.name.rpartition(".")[2])]
    if len(found) == 1:
        print(f"jaxtricks.{found[0].name}\n\n{found[0].signature}\n\n{found[0].doc}")
    elif found:
        _fail(f"{wanted} is several: {', '.join(e.name for e in found)}")
    elif wanted in catalogue.families():
        _fail(f"{wanted} is a family: jaxtricks list {wanted}")
    else:
        short = {e.name.rpartition(".")[2]: e.name for e in entries}
        whole = {e.name: e.name for e in entries}
        _fail_unknown("function", wanted, short | whole, "see: jaxtricks list")


def _papers(args: argparse.Namespace) -> None:
    served = catalogue.served(_entries(args.family))
    heads = ("paper", "arXiv", "functions")
    if args.markdown:
        print(_markdown(heads), _markdown(("---",) * 3), sep="\n")
        for paper, names in served:
            arxiv = paper.arxiv
            link = f"[{arxiv}](https://arxiv.org/abs/{arxiv})" if arxiv else ""
            print(_markdown((paper.title, link, ", ".join(f"`{n}`" for n in names))))
    else:
        _table(heads, [(p.title, p.arxiv, ", ".join(names)) for p, names in served])


def _entries(family: str | None) -> list[catalogue.Entry]:
    families = catalogue.families()
    if family is not None and family not in families:
        _fail_unknown("family", family, {f: f for f in families}, _families())
    return catalogue.entries(family)


def _cite(paper: catalogue.Paper) -> str:
    where = f", arXiv:{paper.arxiv}" if paper.arxiv else ""
    return f"{paper.authors} {paper.year}{where}"


def _markdown(cells: Row) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _table(heads: Row, rows: list[Row]) -> None:
    if sys.stdout.isatty() and importlib.util.find_spec("rich"):
        _rich_table(heads, rows)
        return
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _rich_table(heads: Row, rows: list[Row]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in heads:
        table.add_column(head, no_wrap=head in ("name", "arXiv"))
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def _fail_unknown(
    kind: str, wanted: str, choices: dict[str, str], hint: str
) -> NoReturn:
    near = difflib.get_close_matches(wanted.casefold(), choices)
    if names := dict.fromkeys(choices[name] for name in near):
        hint = f"did you mean {' or '.join(names)}?"
    _fail(f"no {kind} is called {wanted}; {hint}")


def _fail(message: str) -> NoReturn:
    print(f"jaxtricks: {message}", file=sys.stderr)
    raise SystemExit(2)
