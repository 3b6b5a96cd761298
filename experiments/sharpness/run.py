"""Every variant in turn: what is not measured yet is trained, then all are timed.

What is measured of a variant is one file, so that a killed run loses one at most.
"""

import json
import re
import time
from functools import partial

from rich.console import Console

from .. import costs, files, tricks
from ..small.kept import once
from ..small.tables import percent
from ..sweep.board import Board
from . import data, report, training, variants
from .config import Sharpness
from .data import Split


def run(flags: Sharpness) -> None:
    console = Console(highlight=False)
    names = variants.chosen(flags.variants, flags.quick)
    split = data.load(flags)

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False)

    for line in report.introduction(flags, names):
        say(line)
    claimed = files.claim(
        flags.home, flags.numbers(), split.images.about, fresh=flags.fresh, say=say
    )
    with claimed, Board(console) as board:
        board.begin(len(names) + bool(flags.rounds))
        measure = training.measures(flags, split)
        results = {name: measured(name, flags, split, measure, board) for name in names}
        times = timed(names, flags, split, board) if flags.rounds else {}
        kept = {"flags": flags.numbers() | {"data": flags.data}, "times": times}
        kept["variants"] = results
        files.write_json(flags.home / "results.json", kept)
        report.publish(files.plain(kept), flags.home, say)


def measured(name, flags: Sharpness, split: Split, measure, board: Board) -> dict:
    """What the file holds, after training if it is not there."""

    def trained() -> dict:
        train = training.trainer(name, flags, split.images)
        # What the library refuses at these sizes is the user's to mend.
        run = partial(tricks.call, "--variants", name, training.run)
        return {"variant": name, **run(train, measure, split, flags)}

    def brief(found: dict) -> str:
        return ", ".join(percent(of) for of in found["accuracy"])

    return once(flags.home / f"{slug(name)}.json", name, trained, board, brief)


def timed(names, flags: Sharpness, split: Split, board: Board) -> dict:
    """Of each variant: seconds of an update in each round. They take turns."""
    path = flags.home / "times.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    if set(known) == set(names):
        board.skip()
        return known
    board.show("timing")
    began = time.perf_counter()
    programs = {name: training.timed(name, flags, split.images) for name in names}
    laps = costs.laps(programs, flags.rounds, before=2)
    found = {k: [x / training.PART for x in v] for k, v in laps.items()}
    files.write_json(path, found)
    board.done("timing, all in turns", time.perf_counter() - began)
    return found


def slug(name: str) -> str:
    """A file's name."""
    return re.sub(r"[^\w.=+-]+", "_", name)
