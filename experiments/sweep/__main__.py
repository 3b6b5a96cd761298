"""The command line: flags in, exit status out."""

import hashlib
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..config import BadInput, read
from ..runs import clean
from . import functions, grid, programs, store, table
from .board import Board
from .flags import Sweep
from .grid import Point
from .stop import Stopped, stoppable


def main(argv: list[str]) -> int:
    """0 when all runs succeeded, 1 if some failed, 2 for bad input, or 128 + signal."""
    cut = argv.index("--") if "--" in argv else len(argv)
    try:
        config = read(Sweep, argv[:cut], "python -m experiments.sweep")
        with stoppable():
            return sweep(config, argv[cut + 1 :], Console(highlight=False))
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        words = [word for word in argv if word != "--fresh"]
        again = shlex.join(["python", "-m", "experiments.sweep", *words])
        by = signal.Signals(stopped.args[0]).name
        print(f"stopped by {by}; to continue: {again}", file=sys.stderr)
        return 128 + stopped.args[0]


def sweep(config: Sweep, constants: Sequence[str], console: Console) -> int:
    """Runs what is not yet done, and publishes; the exit status."""
    points = grid.points(config.grid)
    if config.seeds < 1:
        raise BadInput(f"--seeds: wanted >= 1, came {config.seeds}")
    function, command = programs.find(config.program)
    if function and constants:
        raise BadInput(f"{config.program}: run(config, seed) takes no flags after --")
    module = config.program.removesuffix(".py").replace(".", "/")
    name = config.name or f"{Path(module).name}-sweep"
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise BadInput(f"--name: wanted letters, digits, . _ -, came {name!r}")
    home = config.runs / name
    commands = {}
    for point in [] if function else points:
        flags = grid.flags(point, constants)
        for seed in range(config.seeds):
            own = ["--seed", str(seed), "--name", point.run(seed), "--runs", str(home)]
            commands[point.run(seed)] = [*command, *flags, *own]
    if config.dry_run:
        preview(points, config.seeds, commands, home, console)
        return 0
    about = {"program": config.program, "constants": list(constants)}
    if function:
        about["digest"] = hashlib.sha256(function.read_bytes()).hexdigest()
    with store.claim(home, about, config.fresh) as results, Board(console) as board:
        board.begin(len(points) * config.seeds)
        if function:
            functions.call(function, points, config.seeds, results, home, board)
        else:
            programs.launch(commands, points, config.seeds, results, home, board)
    return table.publish(points, config, results, home, console, compare=not function)


def preview(
    points: Sequence[Point], seeds: int, commands: dict, home: Path, console: Console
) -> None:
    """What would be run."""
    lines = [f"{len(points)} points x {seeds} seeds in {home}"]
    for point in points:
        lines += [point.label] * (not commands and bool(point.label))
        for seed in range(seeds if commands else 0):
            lines.append(shlex.join(["python", *commands[point.run(seed)][1:]]))
    for line in lines:
        console.print(clean(line), soft_wrap=True, markup=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
