"""The picture: predicted by magic, and true, changes of losses, of the first seed."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from .. import pictures, runs
from .config import TRAINERS

EDGE = 5.0  # of a panel, in standard deviations
MARKERS = "osD^"


def picture(kept: dict, path: Path) -> None:
    """A row a trainer, a column a part left out, a colour and marker a target."""
    drops = kept["flags"]["drop"]
    with matplotlib.rc_context(pictures.STYLE):
        size = (3.6 * len(drops) + 0.6, 3.4 * len(TRAINERS))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(TRAINERS), len(drops), squeeze=False)
        for line, trainer in zip(grid, TRAINERS, strict=True):
            seed = kept["results"][trainer][0]
            for axes, drop, part in zip(line, drops, seed["parts"], strict=True):
                _panel(axes, seed["values"], part)
                mean = sum(map(runs.number, part["scores"]["magic"]))
                mean /= len(part["scores"]["magic"])
                title = f"{trainer}, {100 * drop:g} % left out: score {mean:.2f}"
                axes.set_title(title, fontsize=10)
        for axes in grid[-1]:
            axes.set_xlabel("predicted change of a loss", fontsize=9)
        for line in grid:
            line[0].set_ylabel("true change (standard deviations)", fontsize=9)
        figure.savefig(path, dpi=110, format="png")


def _panel(axes, values, part) -> None:
    """Both changes over the spread of the true one: losses differ a hundredfold."""
    outside = 0
    for i, (value, true, said) in enumerate(
        zip(values, part["actual"], part["predicted"]["magic"], strict=True)
    ):
        pairs = [
            (runs.number(p) - runs.number(value), runs.number(t) - runs.number(value))
            for p, t in zip(said, true, strict=True)
        ]
        mean = sum(t for _, t in pairs) / len(pairs)
        spread = (sum((t - mean) ** 2 for _, t in pairs) / len(pairs)) ** 0.5 or 1.0
        x, y = zip(*((p / spread, t / spread) for p, t in pairs), strict=True)
        outside += sum(
            not max(abs(p), abs(t)) <= EDGE for p, t in zip(x, y, strict=True)
        )
        marker = MARKERS[i // len(pictures.COLORS) % len(MARKERS)]
        color = pictures.look(i)[0]
        axes.scatter(x, y, s=9, color=color, marker=marker, alpha=0.7, lw=0)
    if outside:
        at = {"transform": axes.transAxes, "ha": "right", "fontsize": 8}
        axes.text(0.98, 0.03, f"{outside} points outside", **at)
    axes.axline((0, 0), slope=1, color="#808080", lw=0.8, zorder=0)
    axes.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE))
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
