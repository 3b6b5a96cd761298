"""The picture: one wave as MAML and joint pretraining fit it, and adaptation curves."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from .. import pictures, runs
from .config import METHODS
from .report import NAMES, of

TITLES = {
    "sinusoid": "new sine waves: mean squared error",
    "digits": "new digits: accuracy (%)",
}
BELOW: Any = {"loc": "outside lower center", "frameon": False, "fontsize": 8.5}


def picture(kept: dict, path: Path) -> None:
    """Above one wave, below what all initialisations reach by the step, with 95 %
    intervals over tasks."""
    problems = list(kept["problems"])
    style: Any = pictures.STYLE
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(8.4, 7.2), layout="constrained")
        rows: Any = figure.subfigures(2, 1)
        upper, lower = rows
        fits = upper.subplots(1, 2, sharex=True, sharey=True)
        for axes, method in zip(fits, ("maml", "joint"), strict=True):
            one = kept["problems"]["sinusoid"][method]
            _fit(axes, one["fit"])
            axes.set_title(f"{NAMES[method]}, rate {one['rate']:g}", fontsize=10)
        upper.legend(*fits[0].get_legend_handles_labels(), ncols=5, **BELOW)
        curves = lower.subplots(1, len(problems), squeeze=False)[0]
        for axes, problem in zip(curves, problems, strict=True):
            _curves(axes, kept, problem)
        lower.legend(*curves[0].get_legend_handles_labels(), ncols=4, **BELOW)
        for axes in (*fits, *curves):
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
            axes.grid(alpha=0.25)
        figure.savefig(path, dpi=100, format="png")


def _fit(axes, fit: dict) -> None:
    """The wave's height decides what is seen: a fit may leave it."""
    axes.plot(fit["x"], fit["y"], color=pictures.COLORS[0], lw=1.5, label="truth")
    steps = sorted(int(k) for k in fit if k.isdigit())
    for i, k in enumerate(steps):
        name = "before" if k == 0 else f"after {k} step{'s' if k > 1 else ''}"
        look = {"color": pictures.COLORS[(1, 3, 4)[i]], "label": name, "lw": 1.8}
        axes.plot(fit["x"], fit[str(k)], ("--", ":", "-.")[i], **look)
    shown = {"ls": "none", "marker": "^", "ms": 7, "mec": "white", "zorder": 3}
    look = {"color": pictures.COLORS[5], "label": "shown", **shown}
    axes.plot(fit["support_x"], fit["support_y"], **look)
    most = 1.6 * max(abs(y) for y in fit["y"])
    axes.set_ylim(-most, most)


def _curves(axes, kept: dict, problem: str) -> None:
    scale = 1 if problem == "sinusoid" else 100
    for i, method in enumerate(METHODS):
        found = scale * of(kept, problem, method)
        pairs = [runs.interval(found[:, k].tolist()) for k in range(found.shape[1])]
        mean, half = np.array(pairs).T
        x, color = np.arange(len(mean)), pictures.COLORS[(1, 2, 4, 3)[i]]
        axes.plot(x, mean, color=color, marker="osD^"[i], ms=4, label=NAMES[method])
        axes.fill_between(x, mean - half, mean + half, color=color, alpha=0.2, lw=0)
    axes.set_xlabel("steps of adaptation", fontsize=9)
    axes.set_title(TITLES[problem], fontsize=10)
    if problem == "sinusoid":
        axes.set_yscale("log")
        plain = FuncFormatter(lambda y, _: f"{y:g}" if f"{y:e}"[0] in "125" else "")
        axes.yaxis.set_major_formatter(plain)
        axes.yaxis.set_minor_formatter(plain)
