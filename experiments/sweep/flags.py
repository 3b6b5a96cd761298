"""The flags of a sweep."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Sweep:
    """Run a program at every point of a grid, with several seeds, and print one table.
    Flags after -- go to every run. Killed, it goes on when started again.
    """

    program: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PROGRAM")]
    """A file or a module. A program gets each point as flags, and --seed, --name and
    --runs; it writes RUNS/NAME/results.json at its end, as experiments/train.py does. A
    file that defines run(config, seed) is called with each point; it returns a dict of
    scalars."""
    grid: tuple[str, ...] = ()
    """NAME=VALUE,VALUE ...: all combinations. lr=1e-3,3e-4 is the flag --lr (or
    config["lr"]); sharpness.rho=0,0.05 is rho of the trick that --sharpness names, of
    sam if nothing does (or config["sharpness"]["rho"])."""
    seeds: int = 3
    """Seeds of each point: 0, 1, ... ."""
    name: str = ""
    """The sweep; the same name continues it. By default the program's, and -sweep."""
    runs: Path = Path("runs")
    """The folder that holds the sweep's folder, which holds its runs."""
    metric: str = ""
    """What the best point is chosen by. By default bits_per_byte, accuracy, loss, or
    the first that there is."""
    maximize: bool = False
    """The highest is the best; of accuracy it always is."""
    fresh: bool = False
    """Delete a sweep of this name first."""
    dry_run: bool = False
    """List the runs, and leave."""
