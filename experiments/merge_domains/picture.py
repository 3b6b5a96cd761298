"""The picture: a line for each merge, the average and each domain beside what trained
models reach."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .. import pictures, runs
from .methods import TABLE
from .report import BASE, EACH, MANY, Row, ordered
from .text import NAMES, TITLES

# Okabe and Ito's: what a method does to the changes.
KINDS = {
    "averages": ("#0072B2", "averages"),
    "sphere": ("#56B4E9", "on the sphere"),
    "sparse": ("#D55E00", "keeps some entries"),
    "spectral": ("#009E73", "singular vectors"),
    "data": ("#CC79A7", "looks at data"),
}
# What was trained: a line through all.
LINES = {
    EACH: ("-", "fine-tunes, each on its own domain"),
    MANY: ("--", "multi-task"),
    BASE: (":", "pretrained"),
}
INK, PALE = "#000000", "#B0B0B0"


def picture(trained: Sequence[Row], merges: Sequence[Row], path: Path) -> None:
    """Differences from the fine-tunes, each on its own domain, seed by seed: means with
    their 95 % intervals, the best merge above."""
    shown = ordered(merges)
    known = {row.name: row for row in trained}
    style: Any = pictures.STYLE
    with matplotlib.rc_context(style):
        size = (9.8, 1.7 + 0.2 * len(shown))
        figure = Figure(figsize=size, layout="constrained")
        wide = {"width_ratios": [2.4, *[1] * len(NAMES)]}
        panels = figure.subplots(1, 1 + len(NAMES), sharey=True, gridspec_kw=wide)
        _panel(panels[0], shown, known, None)
        panels[0].set_xlabel("bits per byte above the fine-tunes, on average")
        for i, (axes, name) in enumerate(zip(panels[1:], NAMES, strict=True)):
            _panel(axes, shown, known, i)
            axes.set_xlabel(f"of {TITLES[name]}")
        for axes in panels:
            _dress(axes)
        for y, row in enumerate(shown):
            if row.usual is not None:
                _usual(panels[0], y, row, known[EACH])
        names = [row.name for row in shown]
        panels[0].set_yticks(range(len(shown)), names, fontsize=8)
        panels[0].set_ylim(len(shown) - 0.4, -0.6)
        _legend(figure, shown)
        figure.savefig(path, dpi=130, format="png")


def above(row: Row, each: Row, domain: int | None) -> list[float]:
    """Bits per byte more than the fine-tunes', of a domain or on average."""
    if domain is None:
        pairs = zip(row.average, each.average, strict=True)
    else:
        pairs = zip(row.domain(domain), each.domain(domain), strict=True)
    return [a - b for a, b in pairs]


def _panel(axes, shown: Sequence[Row], known: dict[str, Row], domain) -> None:
    """A point a merge, and lines for what was trained; what is far right, in words."""
    values = [above(row, known[EACH], domain) for row in shown]
    lines = {}
    for name, (dashes, _) in LINES.items():
        lines[name] = runs.interval(above(known[name], known[EACH], domain))[0]
        if math.isfinite(lines[name]):
            axes.axvline(lines[name], color=INK, ls=dashes, lw=1, zorder=1)
    low, high = _limits([runs.interval(of)[0] for of in values], lines)
    axes.set_xlim(low, high)
    for y, (row, of) in enumerate(zip(shown, values, strict=True)):
        mean, half = runs.interval(of)
        color = KINDS[TABLE[row.name].kind][0]
        if not math.isfinite(mean) or mean > high:
            said = f"{mean:.2f} →" if math.isfinite(mean) else "not finite"
            look = {"ha": "right", "va": "center", "fontsize": 7, "color": color}
            axes.text(high, y, said, **look)
            continue
        wide = half if math.isfinite(half) else None
        look = {"color": color, "fmt": "o", "ms": 4.5, "lw": 1.2, "zorder": 3}
        axes.errorbar(mean, y, xerr=wide, **look)


def _limits(means: Sequence[float], lines: dict[str, float]) -> tuple[float, float]:
    """All that is no worse than half as far again as the pretrained model."""
    known = [x for x in lines.values() if math.isfinite(x)]
    low, high = min(known), max(known)
    reach = max(high - low, 1e-3)
    near = [x for x in means if math.isfinite(x) and x < high + 0.5 * reach]
    low, high = min([low, *near]), max([high, *near])
    return low - 0.08 * reach, high + 0.1 * reach


def _usual(axes, y: float, row: Row, each: Row) -> None:
    """The average with the scale to begin with: a ring, tied to the point."""
    apart = [a - b for a, b in zip(row.usual or [], each.average, strict=True)]
    mean, usual = runs.interval(above(row, each, None))[0], runs.interval(apart)[0]
    _, high = axes.get_xlim()
    if not (math.isfinite(mean) and math.isfinite(usual)) or mean > high:
        return
    color = KINDS[TABLE[row.name].kind][0]
    axes.plot([mean, min(usual, high)], [y, y], color=PALE, lw=1, zorder=2)
    if usual <= high:
        look = {"mfc": "white", "mec": color, "ms": 4.5, "zorder": 2.5}
        axes.plot([usual], [y], marker="o", **look)
    else:
        look = {"ha": "right", "va": "center", "fontsize": 7, "color": color}
        axes.text(high, y - 0.28, f"{usual:.2f} →", **look)


def _dress(axes) -> None:
    axes.grid(axis="x", alpha=0.25)
    axes.grid(axis="y", alpha=0.12)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.label.set_fontsize(9)


def _legend(figure: Figure, shown: Sequence[Row]) -> None:
    """The lines above, the colours below."""
    lines = [Line2D([], [], color=INK, ls=ls, lw=1) for ls, _ in LINES.values()]
    words = [said for _, said in LINES.values()]
    plain = {"frameon": False, "fontsize": 8.5}
    figure.legend(lines, words, loc="outside upper center", ncols=len(words), **plain)
    used = {TABLE[row.name].kind for row in shown}
    kinds = [of for kind, of in KINDS.items() if kind in used]
    handles = [Line2D([], [], color=c, marker="o", ms=4.5, lw=0) for c, _ in kinds]
    said = [words for _, words in kinds]
    if any(row.usual is not None for row in shown):
        ring = {"marker": "o", "ms": 4.5, "lw": 0, "mfc": "white", "mec": "#555555"}
        handles.append(Line2D([], [], **ring))
        said.append("at the usual scale")
    figure.legend(handles, said, loc="outside lower center", ncols=len(said), **plain)
