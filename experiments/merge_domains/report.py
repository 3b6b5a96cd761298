"""The result: a table, what it shows, and files to read."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from .. import files, pages, runs
from ..small.kept import results
from ..small.tables import markdown
from .config import Domains
from .methods import PLAIN, TABLE, without_settings
from .text import NAMES, TITLES, Texts

PAGE = Path(__file__).with_name("README.md")
PROGRAM = "experiments.merge_domains"
EACH, BASE, MANY = "each its own domain's", "pretrained", "multi-task"
HEAD = (
    "model",
    "scale",
    *(TITLES[name] for name in NAMES),
    "average",
    "vs plain average",
    "at the usual scale",
    "needs",
)


class Row(NamedTuple):
    """A model, merged or not, a value for each seed."""

    name: str
    bits: list[list[float]]  # [seeds][domains], bits per byte
    usual: list[float] | None = None  # the average with the scale to begin with
    scales: tuple[float, ...] = ()  # chosen ones
    merged: bool = True

    @property
    def average(self) -> list[float]:
        return [sum(of) / len(of) for of in self.bits]

    def domain(self, i: int) -> list[float]:
        return [of[i] for of in self.bits]


def rows(kept: dict) -> tuple[list[Row], list[Row]]:
    """Of results.json: what was trained, and the merges."""
    seeds = kept["seeds"]

    def bits(of) -> list[float]:
        return [runs.number(x) for x in of]

    def model(key: str, name: str) -> Row:
        return Row(name, [bits(one["models"][key]) for one in seeds], merged=False)

    tuned = [model(name, f"fine-tuned on {TITLES[name]}") for name in NAMES]
    own = [[of.bits[s][i] for i, of in enumerate(tuned)] for s, _ in enumerate(seeds)]
    trained = [
        Row(EACH, own, merged=False),
        model("multi-task", MANY),
        *tuned,
        model("base", BASE),
    ]
    merges = []
    for name in seeds[0]["methods"]:
        found = [one["methods"][name] for one in seeds]
        usual = None
        if found[0]["usual"] is not None:
            usual = [sum(b) / len(b) for b in (bits(of["usual"]) for of in found)]
        scales = tuple(of["scale"] for of in found if of["scale"] is not None)
        merges.append(Row(name, [bits(of["bits"]) for of in found], usual, scales))
    return trained, merges


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Fewest bits first, what is not finite last."""

    def rank(row: Row) -> float:
        mean = runs.interval(row.average)[0]
        return mean if math.isfinite(mean) else math.inf

    return sorted(rows, key=rank)


def table(trained: Sequence[Row], merges: Sequence[Row]) -> list[list[str]]:
    """Cells below HEAD. The difference is taken seed by seed."""
    plain = next(row for row in merges if row.name == PLAIN)
    cells = []
    for row in ordered([*trained, *merges]):
        name = row.name if row.merged else f"*{row.name}*"
        apart = "" if row is plain else number(differences(row, plain), "+")
        domains = [
            f"{runs.interval(row.domain(i))[0]:.3f}" for i, _ in enumerate(NAMES)
        ]
        usual = ""
        if row.usual is not None:
            usual = f"{number(row.usual)} ({TABLE[row.name].scale:g})"
        needs = TABLE[row.name].needs if row.merged else ""
        scales = ""
        if row.scales:
            low, high = min(row.scales), max(row.scales)
            scales = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        average = number(row.average)
        cells.append([name, scales, *domains, average, apart, usual, needs])
    return cells


def differences(row: Row, other: Row) -> list[float]:
    return [a - b for a, b in zip(row.average, other.average, strict=True)]


def number(values: Sequence[float], sign: str = "") -> str:
    """The mean and half of its 95 % interval."""
    mean, half = runs.interval(values)
    if not math.isfinite(mean):
        return "not finite"
    said = f"{mean:{sign}.3f}"
    return f"{said} ± {half:.3f}" if math.isfinite(half) else said


def beside(row: Row, other: Row) -> str:
    """ "better", "worse" or "alike", beyond the interval of the differences."""
    mean, half = runs.interval(differences(row, other))
    if not math.isfinite(mean):
        return "not finite"
    if not math.isfinite(half) or abs(mean) <= half:
        return "alike"
    return "better" if mean < 0 else "worse"


def verdict(trained: Sequence[Row], merges: Sequence[Row]) -> list[str]:
    """What differs beyond chance from the plain average, and from what was trained."""
    known = {row.name: row for row in [*trained, *merges]}
    plain, others = known[PLAIN], [row for row in ordered(merges) if row.name != PLAIN]
    said = []
    for what, how in (
        ("Better than the plain average", "better"),
        ("No difference that the seeds can tell", "alike"),
        ("Worse", "worse"),
        ("Not finite", "not finite"),
    ):
        names = [row.name for row in others if beside(row, plain) == how]
        if names:
            said.append(f"{what}: {', '.join(names)}.")
        elif how == "better" and others:
            said.append("No merge is better than the plain average, beyond chance.")
    for other, words in (
        (BASE, "the pretrained model"),
        (MANY, "the multi-task model"),
        (EACH, "the fine-tunes, each on its own domain"),
    ):
        found = [beside(row, known[other]) for row in merges]
        counts = [f"{found.count(how)} {how}" for how in ("better", "alike", "worse")]
        said.append(f"Of {len(merges)} merges beside {words}: {', '.join(counts)}.")
    return said


def markdown_of(kept: dict) -> str:
    """The table, with what it shows."""
    trained, merges = rows(kept)
    parts = [
        explain(kept),
        markdown(HEAD, table(trained, merges)),
        " ".join(verdict(trained, merges)),
    ]
    return "\n\n".join(parts) + "\n"


def explain(kept: dict) -> str:
    """What the numbers are."""
    flags = kept["flags"]
    count = len(kept["seeds"])
    interval = ""
    if count > 1:
        interval = (
            " ± half of their 95 % confidence intervals (Student's t), not corrected "
            "for how many methods there are"
        )
    scales = ", ".join(f"{scale:g}" for scale in flags["scales"])
    long = len(NAMES) * flags["tune"]
    return (
        f"{flags['pretrain']} updates of {flags['batch_size']} windows on all domains, "
        f"then {flags['tune']} on each; multi-task: {long} on all. Bits per byte on "
        f"held-out files, fewer is better: means of {count} seeds{interval}; vs plain "
        "average is of differences seed by seed. Scale: the coefficient of the merged "
        f"change, for each seed the best of {scales} and the usual one on validation "
        "windows of all domains. Needs: what of the domains' data a method itself "
        "looks at. In italics what is trained, not merged."
    )


def spreadsheet(kept: dict) -> str:
    """CSV, a line for each model and seed."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", "merged", "seed", "scale", *NAMES, "average", "usual"])
    trained, merges = rows(kept)
    for row in [*trained, *merges]:
        for s, one in enumerate(kept["seeds"]):
            scale = row.scales[s] if row.scales else ""
            usual = "" if row.usual is None else row.usual[s]
            found = [*row.bits[s], row.average[s], usual]
            writer.writerow([row.name, int(row.merged), one["seed"], scale, *found])
    return out.getvalue()


def publish(kept: dict, home: Path, say: Callable[[str], None]) -> None:
    """table.md, results.csv and picture.png; and the table on the screen."""
    from .picture import picture

    files.write(home / "table.md", markdown_of(kept))
    files.write(home / "results.csv", spreadsheet(kept))
    files.write(home / "picture.png", lambda at: picture(*rows(kept), at))
    say("\n" + markdown_of(kept))
    say(f"table.md, picture.png, results.json and results.csv are in {home}.")


def replot(path: Path, save: bool = False, page: Path = PAGE) -> None:
    """From a results.json to the table and the picture beside it; and on the page."""
    kept = results(path, lambda kept: (markdown_of(kept), spreadsheet(kept)))
    publish(kept, path.parent, print)
    if save:
        from .picture import picture

        pages.insert(page, PROGRAM, markdown_of(kept).strip())
        at = page.with_name("domains.png")
        files.write(at, lambda at: picture(*rows(kept), at))
        print(f"{page} and {at} are written.")


def introduction(flags: Domains, names: Sequence[str], texts: Texts) -> list[str]:
    """What is about to happen, and what is not."""
    sizes = ", ".join(
        f"{TITLES[name]} {texts.about[f'{name} bytes'] / 1e6:.2f} MB" for name in NAMES
    )
    updates = f"{flags.pretrain} + {2 * len(NAMES)} x {flags.tune} updates of each seed"
    lines = [
        f"run   {flags.home}; killed, it continues when started again",
        f"data  {sizes}",
        f"net   {flags.layers} blocks of width {flags.d_model}; {updates}",
        f"      {len(names)} merges, {flags.seeds} seeds",
    ]
    if without_settings():
        lines.append(f"without a setting: {' '.join(without_settings())}")
    return lines
