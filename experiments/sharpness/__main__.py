"""The command line: flags in, exit status out."""

import sys

from ..command import prepare
from ..small import command
from .config import Sharpness, parse


def main(argv: list[str]) -> int:
    """0, 2 for bad input, 128 + signal."""
    return command.main("experiments.sharpness", argv, parse, start)


def start(flags: Sharpness) -> None:
    if flags.replot:
        from .report import replot

        replot(flags.replot)
    elif flags.list:
        show(flags)
    else:
        prepare(flags.runs)
        from .run import run

        run(flags)


def show(flags: Sharpness) -> None:
    """What can be trained, and what cannot and why."""
    from .training import run_of
    from .variants import ELSEWHERE, missing, there, without_settings

    for name, of in there().items():
        hyper = of.hyper(run_of(flags, 10 * flags.per_class, 0.1, "...")).items()
        words = [f"{k}={_short(v)}" for k, v in hyper]
        call = f"{of.fn}({', '.join(words)})"
        print(f"{name}: {call}, {of.why}")
    for title, names in (
        ("in the library, without a setting here:", without_settings()),
        ("has a setting here, not in the library:", missing()),
    ):
        if names:
            print(f"\n{title}")
            print("\n".join(names))
    print("\nno variant:")
    for name, why in ELSEWHERE.items():
        print(f"{name}: {why}")


def _short(value) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, int | str) else "..."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
