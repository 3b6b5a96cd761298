"""The command line: flags in, exit status out."""

import sys

from ..command import prepare
from ..small import command
from .config import Domains, parse


def main(argv: list[str]) -> int:
    """0, 1 where this Python has too little text, 2 for bad input, 128 + signal."""
    return command.main("experiments.merge_domains", argv, parse, start)


def start(flags: Domains) -> None:
    if flags.replot:
        from .report import replot

        replot(flags.replot, flags.save)
    elif flags.list:
        show()
    else:
        prepare(flags.runs)
        from .run import run

        run(flags)


def show() -> None:
    """How everything is merged, and what of the library is not."""
    from .methods import ELSEWHERE, TABLE, without_settings

    for name, of in TABLE.items():
        scale = "" if of.scale is None else f"; scale {of.scale:g} at first"
        needs = f"; needs {of.needs}" if of.needs else ""
        print(f"{name}: {of.why}{scale}{needs}")
    if without_settings():
        print("\nin the library, without a setting here:")
        print("\n".join(without_settings()))
    print("\nmerges nothing here:")
    for name, why in ELSEWHERE.items():
        print(f"{name}: {why}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
