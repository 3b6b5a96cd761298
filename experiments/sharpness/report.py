"""The result: a table for every level of noise, what it shows, and files to read."""

import csv
import io
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from .. import costs, files, runs
from ..small.kept import results
from ..small.tables import markdown, percent
from .config import Sharpness
from .variants import BASE, missing, without_settings

HEAD = (
    "variant",
    "learning rate",
    "test accuracy",
    "vs base",
    "top eigenvalue",
    "m-sharpness",
    "step",
)


class Row(NamedTuple):
    """A variant at one level of noise, a value for each seed."""

    name: str
    rate: float
    accuracy: list[float]
    training: list[float]
    eigenvalue: list[float]
    sharpness: list[float]
    ratio: float  # of the base's time for an update; NaN where none was taken


def rows(kept: dict, level: int) -> list[Row]:
    """Of results.json, as trained: the base first."""
    times, found = kept["times"], []
    for name, of in kept["variants"].items():
        measures = (
            [runs.number(x) for x in of[key][level]]
            for key in (
                "accuracy",
                "training_accuracy",
                "top_eigenvalue",
                "m_sharpness",
            )
        )
        ratio = costs.ratio(times[name], times[BASE]) if times else math.nan
        found.append(Row(name, of["rate"], *measures, ratio))
    return found


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Highest accuracy first, what is not finite last."""

    def rank(row: Row) -> float:
        mean = runs.interval(row.accuracy)[0]
        return -mean if math.isfinite(mean) else math.inf

    return sorted(rows, key=rank)


def table(rows: Sequence[Row], base: Row) -> list[list[str]]:
    """Cells below HEAD. The difference is taken seed by seed."""
    cells = []
    for row in rows:
        apart = "" if row is base else percent(differences(row, base), "+")
        ratio = f"{row.ratio:.2f}x" if math.isfinite(row.ratio) else ""
        accuracy = percent(row.accuracy)
        flat = number(row.eigenvalue), number(row.sharpness)
        cells.append([row.name, f"{row.rate:g}", accuracy, apart, *flat, ratio])
    return cells


def differences(row: Row, base: Row) -> list[float]:
    return [a - b for a, b in zip(row.accuracy, base.accuracy, strict=True)]


def number(values: Sequence[float]) -> str:
    """The mean to three digits, and half of its 95 % interval to as many places."""
    mean, half = runs.interval(values)
    if not math.isfinite(mean):
        return "not finite"
    size = max(abs(mean), half) if math.isfinite(half) else abs(mean)
    places = max(0, 2 - math.floor(math.log10(size))) if size else 0
    said = f"{mean:.{places}f}"
    return f"{said} ± {half:.{places}f}" if math.isfinite(half) else said


def verdict(rows: Sequence[Row]) -> list[str]:
    """What differs from the base beyond chance, and whether flat means accurate."""
    base, *others = rows
    better, worse, alike, lost = [], [], [], []
    for row in others:
        mean, half = runs.interval(differences(row, base))
        if not math.isfinite(mean):
            lost.append(row.name)
        elif math.isfinite(half) and abs(mean) > half:
            (better if mean > 0 else worse).append(row.name)
        else:
            alike.append(row.name)
    said = []
    for what, names in (
        ("More accurate than the base", better),
        ("Less accurate", worse),
        ("No difference that the seeds can tell", alike),
        ("Not finite", lost),
    ):
        if names:
            said.append(f"{what}: {', '.join(names)}.")
    if others and not better:
        said.append("No variant is more accurate than the base beyond its interval.")
    near = [row for row in rows if near_the_best(rows, row)]
    flatter = [f"{correlation(near, k)} for {of}" for k, of in MEASURES.items()]
    but = ", of those within ten points of the best" * (len(near) < len(rows))
    said.append(
        "Rank correlation of a variant's flatness with its test accuracy (below 0: the "
        f"flatter, the more accurate){but}: {', '.join(flatter)}."
    )
    return said


def near_the_best(rows: Sequence[Row], row: Row) -> bool:
    """Within ten points: what is not, has failed to learn, and is flat for that."""
    means = [runs.interval(of.accuracy)[0] for of in rows]
    best = max(filter(math.isfinite, means), default=math.nan)
    return runs.interval(row.accuracy)[0] >= best - 0.1


MEASURES = {"eigenvalue": "the top eigenvalue", "sharpness": "m-sharpness"}


def correlation(rows: Sequence[Row], measure: str) -> str:
    """Spearman's, of means over seeds; with its p-value, or that there is none."""
    pairs = [
        (statistics.fmean(getattr(row, measure)), statistics.fmean(row.accuracy))
        for row in rows
    ]
    pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
    if len(pairs) < 4:
        return "too few variants to say"
    from scipy.stats import spearmanr

    found = spearmanr(*zip(*pairs, strict=True))
    if not math.isfinite(found.statistic):
        return "all alike"
    said = f"{found.statistic:+.2f} (p = {found.pvalue:.2g})"
    return said if found.pvalue < 0.05 else f"{said}, so none to speak of,"


def markdown_of(kept: dict) -> str:
    """All tables, with what they show."""
    parts = [explain(kept)]
    for level, noise in enumerate(kept["flags"]["noise"]):
        of = rows(kept, level)
        base = of[0]
        own = f"of the given training labels the base learns {percent(base.training)}"
        parts += [
            f"### {heading(noise)}",
            markdown(HEAD, table(ordered(of), base)),
            " ".join([f"({own} %.)", *verdict(of)]),
        ]
    return "\n\n".join(parts) + "\n"


def heading(noise: float) -> str:
    return f"{100 * noise:g} % of the labels wrong" if noise else "Clean labels"


def explain(kept: dict) -> str:
    """What the numbers are."""
    flags = kept["flags"]
    images = flags["per_class"]
    tuned = f"The learning rate of each is the best of {len(flags['tried'])} "
    tuned += "on validation images and a seed that is not measured. "
    return (
        f"{flags['net']} on {Path(flags['data']).name}, {images} images of a class, "
        f"{flags['updates']} updates of {flags['batch_size']} with each variant. "
        f"{tuned if len(flags['tried']) > 1 else ''}"
        "Test accuracy in percent, and its difference from the base seed by seed; the "
        "Hessian's top eigenvalue and m-sharpness "
        f"(m = {flags['m']}, radius {flags['rho']:g}) of the training loss where "
        f"training ends: means of {flags['seeds']} seeds ± half of their 95 % "
        "confidence intervals (Student's t), not corrected for how many variants there "
        "are. Step: the time of an update of one seed, of the base's; the median over "
        "rounds in which all take turns."
    )


def spreadsheet(kept: dict) -> str:
    """CSV, a line for each variant, level of noise and seed."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = "variant noise seed rate accuracy training_accuracy top_eigenvalue "
    writer.writerow((head + "m_sharpness step_ratio").split())
    for level, noise in enumerate(kept["flags"]["noise"]):
        for row in rows(kept, level):
            values = (row.accuracy, row.training, row.eigenvalue, row.sharpness)
            for seed, each in enumerate(zip(*values, strict=True)):
                seed += kept["flags"]["seed"]
                writer.writerow([row.name, noise, seed, row.rate, *each, row.ratio])
    return out.getvalue()


def publish(kept: dict, home: Path, say: Callable[[str], None]) -> None:
    """table.md, results.csv and picture.png; and the tables on the screen."""
    from .picture import picture

    levels = kept["flags"]["noise"]
    files.write(home / "table.md", markdown_of(kept))
    files.write(home / "results.csv", spreadsheet(kept))
    panels = [(heading(noise), rows(kept, i)) for i, noise in enumerate(levels)]
    files.write(home / "picture.png", lambda at: picture(panels, at))
    say("\n" + markdown_of(kept))
    say(f"table.md, picture.png, results.json and results.csv are in {home}.")


def look(kept: dict) -> None:
    """Finds all that is shown, or fails."""
    levels = kept["flags"]["noise"]
    _ = [rows(kept, i) for i in range(len(levels))], kept["variants"][BASE]


def replot(path: Path) -> None:
    """From a results.json to the table and the picture beside it."""
    kept = results(path, look)
    publish(kept, path.parent, print)


def introduction(flags: Sharpness, names: Sequence[str]) -> list[str]:
    """What is about to happen, and what is not."""
    levels = ", ".join(f"{100 * noise:g}" for noise in flags.noise)
    rates = " ".join(f"{rate:g}" for rate in flags.tried)
    lines = [
        f"run   {flags.home}; killed, it continues when started again",
        f"data  {flags.data}: {flags.per_class} images of a class, {levels} % of "
        "the labels wrong",
        f"net   {flags.net}, {flags.updates} updates, learning rates {rates}",
        f"      {len(names)} variants, {len(flags.noise)} x {flags.seeds} trainings of "
        "each at once",
    ]
    if without_settings():
        lines.append(f"without a setting: {' '.join(without_settings())}")
    if missing():
        lines.append(f"not in the library: {' '.join(missing())}")
    return lines
