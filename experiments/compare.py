"""Several runs beside each other: a table, one figure, and a page.

`python -m experiments.compare runs/a runs/b` reads what the runs have written, finished
or not, and trains nothing. The page, report.html, is one file that opens without a
server.
"""

import math
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import files
from .config import BadInput, Failed, read
from .runs import (
    METRICS,
    Group,
    Metric,
    Run,
    domain_unit,
    find,
    groups,
    interval,
    main_metric,
    now,
)


@dataclass(frozen=True)
class Compare:
    """Compare runs: prints a table, and writes a figure and a page with config
    differences, curves, domains and environments. The first run is what the others are
    measured against. Runs whose configs differ in the seed alone are one row: their
    mean and its 95 % confidence interval.
    """

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN...")
    ]
    """Folders of runs, as runs/a runs/b; or of folders of runs, as a sweep writes."""
    out: Path = Path("report.html")
    """The page: one file, without scripts."""
    figure: Path = Path("curves.png")
    """The figure: validation against steps and time, and per domain."""


class Summary(NamedTuple):
    """What the table says."""

    head: list[str]
    rows: list[list[str]]
    notes: list[str]


def main(argv: list[str]) -> int:
    """0, or 2 for bad input."""
    try:
        config = read(Compare, argv, "python -m experiments.compare")
        if not config.runs:
            raise BadInput("RUNS: wanted one or more folders of runs, came none")
        for name, path in (("out", config.out), ("figure", config.figure)):
            if not path.absolute().parent.is_dir() or path.is_dir():
                raise BadInput(f"--{name}: cannot write {path}: no such folder")
        compared = groups(find(config.runs))
        publish(compared, config)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def publish(
    compared: list[Group], config: Compare, console: Console | None = None
) -> None:
    """The table on the screen, the figure and the page."""
    from . import pictures, report

    console = console or Console(highlight=False)
    summary, metric = table(compared), main_metric(runs_of(compared))
    brief = table(compared, brief=True)
    try:
        files.write(config.figure, lambda path: pictures.png(path, compared, metric))
        files.write(config.out, report.page(compared, summary, metric))
    except Failed as error:
        raise BadInput(str(error)) from None
    shown = Table()
    for i, name in enumerate(brief.head):
        folds = name in ("run", "worst domain")
        look = {"overflow": "fold"} if folds else {"no_wrap": True}
        shown.add_column(name, justify="right" if i else "left", **look)
    for cells in brief.rows:
        shown.add_row(*(Text(cell) for cell in cells))
    console.print(shown)
    for note in (*summary.notes, f"Page: {config.out}. Figure: {config.figure}."):
        console.print(note, soft_wrap=True, markup=False)


def runs_of(compared: list[Group]) -> list[Run]:
    return [run for group in compared for run in group.runs]


def table(compared: list[Group], *, brief: bool = False) -> Summary:
    """Column names, rows, and the sentences below; brief, what 80 columns hold."""
    runs = runs_of(compared)
    metric = main_metric(runs)
    shown = [m for m in METRICS if any(m.key in run.last for run in runs)]
    shown = [metric] if brief else shown
    relative, several = len(compared) > 1, any(len(g.runs) > 1 for g in compared)
    with_domains, time = any(run.domains for run in runs), now()
    first, first_s = interval(compared[0].final(metric))[0], step_s(compared[0])
    rows = []
    for group in compared:
        is_first, cost = group is compared[0], step_s(group)
        row = {"run": group.name}
        if several and brief and len(group.runs) > 1:
            row["run"] += f" ({len(group.runs)} seeds)"
        elif several and not brief:
            row["seeds"] = str(len(group.runs))
        for m in shown:
            mean, half = interval(group.final(m))
            row[m.label] = m.text(mean, half)
            if m == metric and relative:
                row["vs first"] = "" if is_first else m.change(mean, first)
        if with_domains:
            row["worst domain"] = worst_domain(group)
        row["step"] = f"{1e3 * cost:.1f} ms" if math.isfinite(cost) else "-"
        times = f"{cost / first_s:.2f}x" if first_s > 0 and cost == cost else "-"
        if relative and not brief:
            row["step vs first"] = times
        elif relative and not is_first:
            row["step"] = times
        row["steps"] = progress(group, time, brief=brief)
        rows.append(row)
    said = notes(compared, metric, several, with_domains, time)
    return Summary(list(rows[0]), [list(row.values()) for row in rows], said)


def notes(
    compared: list[Group],
    metric: Metric,
    several: bool,
    with_domains: bool,
    time: float,
) -> list[str]:
    """What the table means, and what it comes to."""
    found = []
    better = max if metric.higher else min
    means = {i: interval(group.final(metric))[0] for i, group in enumerate(compared)}
    means = {i: mean for i, mean in means.items() if math.isfinite(mean)}
    if len(means) > 1:
        best = better(means, key=means.get)
        said = f"{compared[best].name}, {metric.text(means[best])}"
        said += "" if metric.key == "accuracy" else f" {metric.label}"
        found.append(f"The best of these: {said}.")
    if several:
        found.append("Seeds: the mean ± half of its 95 % confidence interval.")
    if with_domains:
        unit = domain_unit(metric)
        found.append(f"Worst domain: the one of the highest validation {unit}.")
    states = {run.name: run.state(time) for run in runs_of(compared)}
    left = [f"{name} ({state})" for name, state in states.items() if state != "done"]
    if left:
        said = "its newest values are" if len(left) == 1 else "their newest values are"
        found.append(f"Not finished, {said} shown: {', '.join(left)}.")
    return found


def step_s(group: Group) -> float:
    """The mean over the seeds of the time of a step."""
    known = [run.step_s for run in group.runs if math.isfinite(run.step_s)]
    return statistics.fmean(known) if known else math.nan


def worst_domain(group: Group) -> str:
    """The domain of the highest mean."""
    means = {}
    for name, each in group.domains().items():
        known = [value for value in each if math.isfinite(value)]
        if known:
            means[name] = statistics.fmean(known)
    worst = max(means, key=means.get, default=None)
    return f"{worst} {means[worst]:.3f}" if worst is not None else "-"


def progress(group: Group, time: float, *, brief: bool) -> str:
    """The steps, or how many of its runs are where."""
    said = list(dict.fromkeys(run.progress(time) for run in group.runs))
    if brief:
        return ", ".join(word.split()[0] for word in said)
    if len(said) == 1:
        return said[0]
    states = [run.state(time) for run in group.runs]
    count = {state: states.count(state) for state in dict.fromkeys(states)}
    return ", ".join(f"{n} {state}" for state, n in count.items())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
