"""The command line, and the table."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jax

from .. import pages
from ..config import BadInput, Failed, read
from ..small.tables import markdown
from . import training
from .training import STEPS, WIDTH

PROGRAM = "experiments.learned_optimizers"
PAGE = Path(__file__).with_name("README.md")
RATES = [10 ** (power / 3) for power in range(-9, 1)]


@dataclass(frozen=True)
class LearnedOptimizers:
    """Learn optimizers by `metagrad.pes` while they train small classifiers, and let
    them train new ones, wider ones and for longer, beside SGD and Adam at tuned rates.

    python -m experiments.learned_optimizers --quick   within a minute
    python -m experiments.learned_optimizers           all
    python -m experiments.learned_optimizers --save    and README.md anew
    """

    quick: bool = False
    """Learn and measure little: to see that it works, not what it shows."""
    updates: int = 400
    """Of the meta-parameters."""
    tasks: int = 16
    """New networks to measure on; the same for all."""
    save: bool = False
    """Put the table into this folder's README.md, too."""


def parse(argv: list[str]) -> LearnedOptimizers:
    flags = read(LearnedOptimizers, argv, f"python -m {PROGRAM}")
    for name in ("updates", "tasks"):
        if getattr(flags, name) < 1:
            raise BadInput(f"--{name}: wanted >= 1, came {getattr(flags, name)}")
    if flags.save and flags.quick:
        raise BadInput("--save: wanted without --quick, came with it")
    return flags


def measured(arm: training.Arm, flags: LearnedOptimizers) -> list[float]:
    """At the width they were learnt or tuned at, at others, and after longer."""
    updates, tasks = (20, 2) if flags.quick else (flags.updates, flags.tasks)
    if arm.first is None:
        meta = training.best(arm, RATES, 2 * tasks)
    else:
        meta = training.learn(arm, updates)
    settings = [{"width": width} for width in widths(flags)]
    settings.append({"steps": 4 * STEPS})
    key = jax.random.key(4)
    return [
        float(training.reached(arm, key, tasks, **kwargs)(meta)) for kwargs in settings
    ]


def widths(flags: LearnedOptimizers) -> list[int]:
    return [WIDTH, 32] if flags.quick else [WIDTH, 64, 256]


def run(flags: LearnedOptimizers) -> None:
    cells = []
    for name, arm in training.arms().items():
        began = time.perf_counter()
        cells.append([name, *(f"{end:.3f}" for end in measured(arm, flags))])
        print(
            f"{' '.join(cells[-1])} ({time.perf_counter() - began:.0f} s)", flush=True
        )
    head = ["optimizer", *(f"width {n}" for n in widths(flags)), f"{4 * STEPS} steps"]
    found = markdown(head, cells)
    print(f"\n{found}")
    if flags.save:
        pages.insert(PAGE, PROGRAM, found)


def main(argv: list[str]) -> int:
    """0, 1 where README.md cannot be written, 2 for bad input."""
    try:
        run(parse(argv))
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Failed as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
