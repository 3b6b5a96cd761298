"""Every pair of every model in turn: what is not measured yet is trained first.

What is measured of a pair is one file, so that a killed run loses one at most.
"""

from functools import partial

from rich.console import Console

from .. import files
from ..small import sets
from ..small.kept import once
from ..small.sets import Images
from ..sweep.board import Board
from . import report, training
from .config import Rebasin


def run(flags: Rebasin) -> None:
    console = Console(highlight=False)
    data = sets.load(flags.data)

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False)

    for line in report.introduction(flags, data):
        say(line)
    claimed = files.claim(
        flags.home, flags.numbers(), data.about, fresh=flags.fresh, say=say
    )
    with claimed, Board(console) as board:
        board.begin(len(flags.models) * flags.pairs)
        kept = {"flags": flags.numbers() | {"data": flags.data}, "models": {}}
        for model in flags.models:
            task = training.task(model, data, flags)
            kept["models"][model] = [
                measured(task, i, data, flags, board) for i in range(flags.pairs)
            ]
        files.write_json(flags.home / "results.json", kept)
        report.publish(files.plain(kept), flags.home, say)


def measured(
    task: training.Task, pair: int, data: Images, flags: Rebasin, board: Board
) -> dict:
    """What the file holds, after training if it is not there."""

    def brief(found: dict) -> str:
        before, by_weights = (found["barrier"][k] for k in ("nothing", "weights"))
        return f"barrier {before:.3f}, aligned by weights {by_weights:.3f}"

    path = flags.home / f"{task.model}-{pair}.json"
    train = partial(training.measure, task, pair, data, flags)
    return once(path, f"{task.model} {pair}", train, board, brief)
