"""The command line: flags in, exit status out."""

import sys

from ..small import command
from .config import parse

PROGRAM = "experiments.magic"


def main(argv: list[str]) -> int:
    """0, 2 for bad input, 128 + signal."""
    return command.main(PROGRAM, argv, parse, command.run_or_replot(PROGRAM))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
