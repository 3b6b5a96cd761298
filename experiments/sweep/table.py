"""The result: one table, on the screen and in files."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import files
from ..config import BadInput
from ..runs import METRICS, interval, number
from .flags import Sweep
from .grid import Point
from .store import Results, keep


def publish(
    points: Sequence[Point],
    config: Sweep,
    results: Results,
    home: Path,
    console: Console,
    *,
    compare: bool,
) -> int:
    """sweep.json, table.md and the table on the screen; 1 if a run failed."""
    keep(home, results)
    head, rows, best, notes = table(points, config, results)
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for i, row in enumerate(rows):
        cells = [cell.replace("|", "\\|") for cell in row]
        lines.append(
            [f"**{cell}**" if cell else "" for cell in cells] if i == best else cells
        )
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    files.write(home / "table.md", "\n\n".join([text, *notes]) + "\n")
    shown = Table()
    for i, name in enumerate(head):
        shown.add_column(Text(name), justify="right" if i else "left", overflow="fold")
    for i, row in enumerate(rows):
        cells = [("* " if i == best else "") + row[0], *row[1:]]
        shown.add_row(*map(Text, cells), style="bold" if i == best else None)
    console.print(shown)
    failed = []
    for point in points:
        for seed in range(config.seeds):
            found = results.get(point.run(seed), {})
            if "failed" in found:
                where = f" ({found['log']})" if "log" in found else ""
                failed.append(
                    f"failed: {point.label} seed {seed}: {found['failed']}{where}"
                )
    notes = [*notes, *failed, f"Results: {home / 'sweep.json'} and table.md beside it."]
    if compare and any("measured" in found for found in results.values()):
        again = shlex.join(["python", "-m", "experiments.compare", str(home)])
        notes.append(f"Curves and a page: {again}")
    for note in notes:
        console.print(note, soft_wrap=True, markup=False)
    return 1 if failed else 0


def table(
    points: Sequence[Point], config: Sweep, results: Results
) -> tuple[list[str], list[list[str]], int | None, list[str]]:
    """Column names, rows, which of them is the best, and the sentences below."""
    values = {}  # by metric, by point: of the seeds that are done, by seed
    for i, point in enumerate(points):
        for seed in range(config.seeds):
            for k, v in results.get(point.run(seed), {}).get("measured", {}).items():
                at = values.setdefault(k, [{} for _ in points])
                at[i][seed] = number(v)
    metric = chosen(config.metric, list(values))
    head = [*(points[0].values or {"": ""}), *values]
    rows = [
        [
            *(point.values.values() or [""]),
            *(cell(at[i], config.seeds) for at in values.values()),
        ]
        for i, point in enumerate(points)
    ]
    notes = []
    if config.seeds > 1:
        notes.append(
            f"Of {config.seeds} seeds: the mean ± half of its 95 % confidence interval "
            "(Student's t)."
        )
    if metric is None:
        return head, rows, None, notes
    higher = config.maximize or metric.startswith("acc")
    at = values[metric]
    whole = {
        i: math.fsum(found.values()) / len(found)
        for i, found in enumerate(at)
        if len(found) == config.seeds and all(map(math.isfinite, found.values()))
    }
    if not whole:
        return head, rows, None, [*notes, "No point has finite results of all seeds."]
    best = (max if higher else min)(whole, key=whole.get)
    word = "highest" if higher else "lowest"
    where = points[best].label or "the only point"
    notes.append(f"Best: {where}, by the {word} mean {metric}.")
    close = []
    for i in whole:
        apart = [at[i][s] - at[best][s] for s in at[best]]
        mean, half = interval(apart)
        if i != best and not abs(mean) > half:
            close.append(points[i].label)
    if close and config.seeds > 1:
        said = "95 % interval of the difference, seed by seed, holds 0"
        notes.append(f"Not told apart from it ({said}): {'; '.join(close)}.")
    elif len(whole) > 1 and config.seeds == 1:
        notes.append("One seed tells no point from another.")
    return head, rows, best, notes


def chosen(wanted: str, present: Sequence[str]) -> str | None:
    """The metric that the best is chosen by."""
    if wanted and present and wanted not in present:
        raise BadInput(f"--metric: wanted one of {', '.join(present)}, came {wanted}")
    known = [wanted, *(metric.key for metric in METRICS)]
    return next((k for k in known if k in present), present[0] if present else None)


def cell(found: dict[int, float], seeds: int) -> str:
    """The mean and half of its interval, and of how many seeds if not of all."""
    finite = [v for v in found.values() if math.isfinite(v)]
    if not finite:
        return "not finite" if found else "-"
    mean, half = interval(finite)
    leading = math.floor(math.log10(abs(mean))) if mean else 0
    digits = min(4, max(0, 4 - leading))
    if half > 0:  # two digits of the half, three of the mean
        digits = min(8, max(0, 1 - math.floor(math.log10(half)), min(3, 2 - leading)))
    said = f"{mean:.{digits}f}" + (
        f" ± {half:.{digits}f}" if math.isfinite(half) else ""
    )
    return said if len(finite) == seeds else f"{said} ({len(finite)} of {seeds})"
