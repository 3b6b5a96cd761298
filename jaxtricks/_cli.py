"""The console script `jaxtricks`: what the library holds, and merges of files.

What it holds is read from the library's text by `catalogue`. Only the standard library
is needed; on a terminal, rich draws the tables where it is installed. A merge of files
needs numpy and PyYAML, and tensorstore for orbax, but never jax.
"""

import argparse
import difflib
import importlib.util
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from . import __version__, catalogue

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
_MERGE = """\
  jaxtricks merge ties.yml out              writes the folder out, whole or not at all
  jaxtricks merge ties.yml --explain        where it is not what others do
  jaxtricks merge ties.yml out --model base=/checkpoints/llama

ties.yml, a recipe of mergekit's:
  merge_method: ties
  base_model: base
  models:
    - model: math              # a folder, a file, or in the Hugging Face cache
      parameters: {weight: 0.6, density: 0.5}
    - model: code
      parameters:
        weight: [0.2, 0.6]     # a gradient from the first layer to the last
        density:
          - {filter: mlp, value: 0.7}   # tensors with this in their names
          - value: 0.4                  # all others
  dtype: bfloat16              # of OUT; computed in f32 at least

methods:
  arcee_fusion, breadcrumbs, breadcrumbs_ties, dare_linear, dare_ties, della,
  della_linear, karcher, linear, model_stock, multislerp, nearswap, nuslerp,
  passthrough, ram, ramplus_tl, sce, slerp, task_arithmetic, ties

Recipes may also have slices, modules, parameters of all models, out_dtype,
tokenizer_source and chat_template, as mergekit's; a key that is unknown is an error.

Reads safetensors (a file, or shards with an index), flax msgpack and orbax, never
pickles. Streams tensor by tensor: --dry-run says the memory. OUT holds merge.json with
the recipe, versions and the SHA-256 of the inputs. Status 2 and one line if it fails.
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
    _merging(commands)
    return parser


def _merging(commands) -> None:
    merge = _command(
        commands,
        "merge",
        "checkpoints merged by a recipe of mergekit's",
        "Merges checkpoints of any size by a recipe of mergekit's.",
        _MERGE,
    )
    merge.add_argument("config", metavar="CONFIG.yml", help="the recipe")
    merge.add_argument("out", nargs="?", metavar="OUT", help="the folder to make")
    merge.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be done to which tensors, and the memory it takes",
    )
    merge.add_argument(
        "--explain",
        action="store_true",
        help="print where it differs from the papers and mergekit",
    )
    merge.add_argument(
        "--model",
        action="append",
        metavar="NAME=PATH",
        help="where a model of the recipe lies; may be repeated",
    )
    merge.add_argument(
        "--tied",
        action="append",
        metavar="NAME=NAME",
        help="the tensor that stands in where a model lacks the first",
    )
    merge.add_argument(
        "--shard-size", default="5B", metavar="SIZE", help="5B (default), 500M, ..."
    )
    merge.add_argument("--seed", type=int, default=0, help="of random methods")
    merge.set_defaults(run=lambda args: _files().merge(args))
    average = _command(
        commands,
        "average",
        "the mean of a run's last checkpoints",
        "Averages the last checkpoints of a run, as LAWA does.",
    )
    average.add_argument("run_dir", metavar="RUN_DIR", help="of orbax checkpoints")
    average.add_argument(
        "out", nargs="?", metavar="OUT", help="default RUN_DIR/average"
    )
    average.add_argument("--last", type=int, default=5, metavar="N", help="how many")
    average.add_argument("--weights", metavar="W,W,...", help="oldest first")
    average.add_argument(
        "--parts", metavar="NAME,...", help="what is averaged (params, batch_stats)"
    )
    average.add_argument(
        "--rest", choices=("newest", "drop"), default="newest", help="what is not"
    )
    average.set_defaults(run=lambda args: _files().average(args))
    for command, form in ((merge, "safetensors"), (average, "orbax")):
        command.add_argument(
            "--format", choices=("safetensors", "orbax"), default=form, help="of OUT"
        )
        command.add_argument(
            "--workers",
            type=int,
            metavar="N",
            help="tensors at once (cores, at most 4)",
        )
        command.add_argument("--overwrite", action="store_true", help="replace OUT")


def _files():
    """The commands on files, and numpy with them, only when one runs."""
    from .merging.files import _command

    return _command


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
