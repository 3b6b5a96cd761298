"""Every method, level of noise, and the schedule; what is in a file is not run again.

All seeds are one program. A killed run loses one method at most.
"""

from functools import partial

import jax
import numpy as np
from rich.console import Console

from .. import files
from ..small.kept import once
from ..sweep.board import Board
from . import data, report, selection, tuning
from .config import METHODS, Mgd


def run(flags: Mgd) -> None:
    console = Console(highlight=False)
    split = data.load()

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False)

    for line in report.introduction(flags):
        say(line)
    claimed = files.claim(
        flags.home, flags.numbers(), split.data.about, fresh=flags.fresh, say=say
    )
    with claimed, Board(console) as board:
        board.begin(len(METHODS) * len(flags.settings) + 1)
        found = {"flags": flags.numbers(), "selection": {}}
        for setting in flags.settings:
            lanes = data.lanes(split, flags, setting)
            found["selection"][setting] = {
                name: kept(
                    flags,
                    board,
                    f"{name} {setting}",
                    partial(selected, name, flags, split, lanes),
                )
                for name in METHODS
            }
        lanes = data.lanes(split, flags, "0")
        found["schedule"] = kept(
            flags, board, "schedule", partial(scheduled, flags, split, lanes)
        )
        files.write_json(flags.home / "results.json", found)
        report.publish(files.plain(found), flags.home, say, save=flags.save)


def kept(flags: Mgd, board: Board, what: str, measure) -> dict:
    """What the file holds, after measuring if it is not there."""
    path = flags.home / f"{what.replace(' ', '-')}.json"
    return once(path, what, measure, board, report.brief)


def selected(name: str, flags: Mgd, split: data.Split, lanes: data.Lane) -> dict:
    """Lists over seeds."""
    return jax.vmap(partial(selection.measured, name, flags, split))(lanes)


def scheduled(flags: Mgd, split: data.Split, lanes: data.Lane) -> dict:
    """Outcomes of every round and of the grid, [seeds][tried], and the best of both."""
    one = jax.tree.map(lambda x: x[0], lanes)
    cost, round_ = tuning.costs(flags, one)
    tried = tuning.equal(flags, one)
    found = {"training": cost, "round": round_, "tried": tried}
    for what, program in zip(
        ("mgd", "grid"), tuning.programs(flags, split), strict=True
    ):
        measured = {k: np.asarray(v) for k, v in program(lanes).items()}
        count = tried if what == "grid" else flags.tune_rounds
        found[what] = {
            **measured,
            "curve": tuning.curve(measured["valid"])[:, :count],
            "best": tuning.best(measured, count),
        }
    return found
