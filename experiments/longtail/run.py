"""Every trick in every setting: what is not measured yet is trained, then all is shown.

What is measured of a trick is one file, so that a killed run loses one trick at most.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console

from .. import files, runs
from ..config import Failed
from ..small import sets
from ..small.kept import once
from ..small.sets import Images
from ..small.tables import percent
from ..sweep.board import Board
from . import asked, objective, report, training
from .config import PLAIN, Longtail
from .report import Row, Setting


def run(flags: Longtail) -> None:
    """Plain cross entropy on even classes first, which has to reach --reach."""
    console = Console(highlight=False)
    chosen = asked.of(flags)
    data = sets.load(flags.data)
    for one in chosen if flags.tricks else ():
        objective.probe(one, data.classes)
    sizes = sets.tail(data.largest, data.classes, flags.imbalance)
    even = sets.even(int(sizes.sum()), data.classes)
    report.introduce(flags, sizes, len(chosen), console)
    results: dict[float, dict[str, dict]] = {noise: {} for noise in flags.settings}

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False)

    claimed = files.claim(
        flags.home, flags.numbers(), data.about, fresh=flags.fresh, say=say
    )
    with claimed, Board(console) as board:
        board.begin(1 + len(chosen) * len(flags.settings))
        plain = training.trainer(chosen[0], flags)
        path = flags.home / "even.json"
        found = measured("even classes", path, plain, data, even, 0.0, flags, board)
        reached = report.row("even classes", found)
        check(reached, flags)
        for one in chosen:
            name = asked.label(one)
            train = plain if name == PLAIN else training.trainer(one, flags)
            for noise in flags.settings:
                path = flags.home / folder(noise) / f"{slug(name)}.json"
                results[noise][name] = measured(
                    name, path, train, data, sizes, noise, flags, board
                )
        named = {folder(noise): of for noise, of in results.items()}
        files.write_json(flags.home / "results.json", {"even": found, **named})
        for noise, of in results.items():
            suffix = f"-{folder(noise)}" if noise else ""
            setting = Setting(noise, even, reached, of[PLAIN])
            rows = [report.row(name, kept) for name, kept in of.items()]
            report.publish(rows, setting, flags, suffix, console)
    say(f"Tables, pictures and results are in {flags.home}.")


def measured(
    name: str,
    path: Path,
    train: Callable,
    data: Images,
    sizes: np.ndarray,
    noise: float,
    flags: Longtail,
    board: Board,
) -> dict:
    """What the file holds, after training if it is not there."""

    def trained() -> dict:
        drawn = sets.draw(data, sizes, noise=noise, seeds=flags.seeds, seed=flags.seed)
        return {"trick": name, **training.run(train, data, drawn, noise, flags)}

    def brief(found: dict) -> str:
        return percent(report.row(name, found).balanced)

    return once(path, name, trained, board, brief)


def check(reached: Row, flags: Longtail) -> None:
    """The network and its training must be good enough to compare anything."""
    if not runs.interval(reached.balanced)[0] >= flags.reach:
        said = f"cross entropy reached {percent(reached.balanced)} %"
        wanted = f"on even classes, wanted --reach {100 * flags.reach:g} %"
        more = "take more --epochs, another --model or a lower --reach"
        raise Failed(f"{said} {wanted}: {more}")


def folder(noise: float) -> str:
    return f"noise-{noise:g}"


def slug(name: str) -> str:
    """A file's name."""
    return re.sub(r"[^\w.=+-]+", "_", name.replace(" + ", "+"))
