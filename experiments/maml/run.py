"""Every initialisation in turn, on every problem; what is measured is kept in files."""

from functools import partial

from rich.console import Console

from .. import files
from ..small.kept import once
from ..sweep.board import Board
from . import report, training
from .config import METHODS, Maml
from .problems import problem


def run(flags: Maml) -> None:
    console = Console(highlight=False)

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False)

    for line in report.introduction(flags):
        say(line)
    about = {"problems": list(flags.problems)}
    claimed = files.claim(
        flags.home, flags.numbers(), about, fresh=flags.fresh, say=say
    )
    with claimed, Board(console) as board:
        board.begin(len(METHODS) * len(flags.problems))
        found = {}
        for name in flags.problems:
            of = problem(name, flags)
            measure = training.measured(of, flags)
            found[name] = {
                method: learnt(f"{name} {method}", flags, board, method, of, measure)
                for method in METHODS
            }
        kept = {"flags": flags.numbers(), "problems": found}
        files.write_json(flags.home / "results.json", kept)
        report.publish(files.plain(kept), flags.home, say)


def learnt(name: str, flags: Maml, board: Board, method, of, measure) -> dict:
    """What the file holds, after training if it is not there."""
    path = flags.home / f"{name.replace(' ', '-')}.json"

    def show(said: str) -> None:
        board.show(f"{name}: {said}")

    train = partial(training.run, method, of, flags, measure, show)
    return once(path, name, train, board)
