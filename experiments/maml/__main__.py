"""The command line: flags in, exit status out."""

import sys

from ..command import prepare
from ..small import command
from .config import Maml, parse


def main(argv: list[str]) -> int:
    """0, 2 for bad input, 128 + signal."""
    return command.main("experiments.maml", argv, parse, start)


def start(flags: Maml) -> None:
    if flags.replot:
        from .report import replot

        replot(flags.replot, flags.save)
    else:
        prepare(flags.runs)
        from .run import run

        run(flags)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
