"""The picture: accuracy of what was kept; the search for a schedule, and its end."""

import math
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .. import pictures, runs
from .config import METHODS

COLORS = {name: pictures.look(i)[0] for i, name in enumerate(METHODS)}
COLORS["grid"] = COLORS["corrected"]


def picture(kept: dict, path: Path) -> None:
    with matplotlib.rc_context(pictures.STYLE):
        figure = Figure(figsize=(11, 3.8), layout="constrained")
        bars, curve, rates = figure.subplots(1, 3, width_ratios=(1.5, 1, 1))
        _bars(bars, kept)
        _curve(curve, kept)
        _rates(rates, kept)
        for axes in (bars, curve, rates):
            axes.grid(alpha=0.25)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
        figure.savefig(path, dpi=110, format="png")


def _bars(axes, kept: dict) -> None:
    """Means with their intervals, a group for each level of noise."""
    levels = kept["selection"]
    for i, name in enumerate(METHODS):
        for x, of in enumerate(levels.values()):
            mean, half = runs.interval([runs.number(v) for v in of[name]["accuracy"]])
            if not math.isfinite(mean):
                continue
            place = x + (i - (len(METHODS) - 1) / 2) * 0.11
            error = 100 * half if math.isfinite(half) else None
            axes.errorbar(
                place,
                100 * mean,
                yerr=error,
                fmt="o",
                ms=4,
                lw=1,
                color=COLORS[name],
                label=name if x == 0 else None,
            )
    names = [
        name if name == "planted" else f"{100 * float(name):g} % wrong"
        for name in levels
    ]
    axes.set_xticks(range(len(levels)), names)
    axes.set_ylabel("test accuracy (%)", fontsize=9)
    axes.legend(fontsize=7, frameon=False)


def _curve(axes, kept: dict) -> None:
    """The least validation loss so far against what was spent, with intervals."""
    of = kept["schedule"]
    each = {"mgd": of["round"], "grid": of["training"]}
    lowest, highest = math.inf, 0.0
    for name, cost in each.items():
        table = [[runs.number(x) for x in row] for row in of[name]["curve"]]
        points = [runs.interval([*column]) for column in zip(*table, strict=True)]
        x = [cost * (k + 1) / of["training"] for k in range(len(points))]
        known = [k for k, (mean, _) in enumerate(points) if math.isfinite(mean)]
        means = np.array([points[k][0] for k in known])
        halves = np.nan_to_num([points[k][1] for k in known])
        at, color = [x[k] for k in known], COLORS[name]
        lowest = min([lowest, *(means - halves)[means > halves]])
        highest = max([highest, *means])
        axes.plot(at, means, color=color, marker="o", ms=3, label=name)
        axes.fill_between(at, means - halves, means + halves, color=color, alpha=0.15)
    _log(axes)
    if lowest < highest:
        axes.set_ylim(0.9 * lowest, 1.2 * highest)
    axes.set_xlabel("step evaluations, in trainings", fontsize=9)
    axes.set_ylabel("least validation loss so far", fontsize=9)
    axes.legend(fontsize=7, frameon=False)


def _rates(axes, kept: dict) -> None:
    """Each seed's learned schedule, that of the round of least validation loss."""
    of = kept["schedule"]["mgd"]
    total = kept["flags"]["tune_updates"]
    for i, (rates, valid) in enumerate(zip(of["rates"], of["valid"], strict=True)):
        clean = [runs.number(v) for v in valid]
        best = int(np.argmin([v if math.isfinite(v) else math.inf for v in clean]))
        steps = np.linspace(0, total, len(rates[best]))
        axes.plot(steps, rates[best], color=pictures.look(i)[0], lw=1.2, marker=".")
    _log(axes)
    axes.set_xlabel("step", fontsize=9)
    axes.set_ylabel("learned rate, a line a seed", fontsize=9)


def _log(axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
