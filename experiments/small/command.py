"""How a command that may be killed and started again begins and ends."""

import shlex
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from ..command import prepare
from ..config import BadInput, Failed
from ..sweep.stop import Stopped, stoppable


def main(
    name: str, argv: list[str], parse: Callable, run: Callable[[Any], None]
) -> int:
    """run(parse(argv)): 0, 1 for a failure, 2 for bad input, or 128 + signal."""
    try:
        flags = parse(argv)
        with stoppable():
            run(flags)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Failed as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    except Stopped as stopped:
        words = [word for word in argv if word != "--fresh"]
        again = shlex.join(["python", "-m", name, *words])
        by = signal.Signals(stopped.args[0]).name
        print(f"stopped by {by}; to continue: {again}", file=sys.stderr)
        return 128 + stopped.args[0]
    return 0


def run_or_replot(program: str) -> Callable[[Any], None]:
    """Starts the package's `run.run`, or with --replot its `report.replot`."""

    def start(flags: Any) -> None:
        if flags.replot:
            import_module(f"{program}.report").replot(flags.replot, flags.save)
        else:
            prepare(flags.runs)
            import_module(f"{program}.run").run(flags)

    return start
