"""The result: two tables, what they show, and files to read."""

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path

from .. import files, pages, runs
from ..small.kept import results
from ..small.tables import markdown, percent
from .config import METHODS, RATES, SHAPES, Mgd

PROGRAM = "experiments.mgd"
PAGE = Path(__file__).with_name("README.md")
BASELINES = ("random", "loss", "held-out loss")  # that keep as many as mgd does


def values(of: dict, key: str) -> list[float]:
    return [runs.number(x) for x in of[key]]


def selection_table(kept: dict, setting: str) -> str:
    head = ["trained on", "test accuracy", "mgd's less this", "kept labels right"]
    found = kept["selection"][setting]
    best = values(found["mgd"], "accuracy")
    cells = []
    for name in METHODS:
        accuracy = values(found[name], "accuracy")
        apart = [a - b for a, b in zip(best, accuracy, strict=True)]
        less = "" if name == "mgd" else percent(apart, "+")
        right = percent(values(found[name], "right"))
        cells.append([name, percent(accuracy), less, right])
    return markdown(head, cells)


def selection_verdict(kept: dict, setting: str) -> list[str]:
    found = kept["selection"][setting]
    best = values(found["mgd"], "accuracy")
    said = {"wins against": [], "loses to": [], "cannot be told from": []}
    for name in BASELINES:
        other = values(found[name], "accuracy")
        mean, half = runs.interval([a - b for a, b in zip(best, other, strict=True)])
        known = math.isfinite(half) and abs(mean) > half
        how = "wins against" if mean > 0 else "loses to"
        said[how if known else "cannot be told from"].append(name)
    parts = [f"{how} {', '.join(names)}" for how, names in said.items() if names]
    return [f"mgd {'; it '.join(parts)}."]


def number(x: list[float]) -> str:
    mean, half = runs.interval(x)
    if not math.isfinite(mean):
        return "not finite"
    return f"{mean:.4f} ± {half:.4f}" if math.isfinite(half) else f"{mean:.4f}"


def schedule_table(kept: dict) -> str:
    of, flags = kept["schedule"], kept["flags"]
    head = ["schedule", "tried", "step evaluations", "validation loss", "test loss"]
    head.append("test accuracy")
    spent = {
        "mgd": (flags["tune_rounds"], flags["tune_rounds"] * of["round"]),
        "grid": (of["tried"], of["tried"] * of["training"]),
    }
    cells = []
    for name, (tried, cost) in spent.items():
        best = of[name]["best"]
        losses = [number(values(best, key)) for key in ("valid", "test")]
        accuracy = percent(values(best, "accuracy"))
        cells.append([name, str(tried), str(cost), *losses, accuracy])
    return markdown(head, cells)


def schedule_verdict(kept: dict) -> str:
    of = kept["schedule"]
    valid, test = (
        runs.interval(
            [
                a - b
                for a, b in zip(
                    values(of["mgd"]["best"], key),
                    values(of["grid"]["best"], key),
                    strict=True,
                )
            ]
        )
        for key in ("valid", "test")
    )
    parts = []
    for what, (mean, half) in (("validation", valid), ("test", test)):
        known = math.isfinite(half) and abs(mean) > half
        how = ("lower" if mean < 0 else "higher") if known else "no different"
        parts.append(f"{what} loss {how} ({mean:+.4f} ± {half:.4f})")
    said = "Seed by seed, the learned schedule's best beside the grid's: "
    return f"{said}{parts[0]}; {parts[1]}."


def markdown_of(kept: dict) -> str:
    parts = ["### Selection", explain_selection(kept)]
    for setting in kept["selection"]:
        parts += [
            f"#### {heading(kept, setting)}",
            selection_table(kept, setting),
            " ".join(selection_verdict(kept, setting)),
        ]
    parts += ["### Schedule", explain_schedule(kept), schedule_table(kept)]
    parts.append(schedule_verdict(kept))
    return "\n\n".join(parts) + "\n"


def heading(kept: dict, setting: str) -> str:
    if setting == "planted":
        part = 100 * kept["flags"]["planted"]
        return f"{part:g} % of every even digit labelled as the next one"
    return f"{100 * float(setting):g} % of the labels wrong"


def explain_selection(kept: dict) -> str:
    flags = kept["flags"]
    return (
        f"Digits, {flags['per_class']} images of a class, a perceptron of two hidden "
        f"layers of {flags['width']}, {flags['updates']} updates of Adam on what is "
        f"kept, {100 * flags['keep']:g} % of the images. `all` keeps all, `corrected` "
        "all with their right labels: the baseline of this network. In percent: test "
        "accuracy, the difference seed by seed, and how many of the kept labels are "
        f"right; means of {flags['seeds']} seeds ± half of their 95 % confidence "
        "intervals (Student's t)."
    )


def explain_schedule(kept: dict) -> str:
    flags, of = kept["flags"], kept["schedule"]
    return (
        f"The same network, right labels, {flags['tune_updates']} updates of SGD with "
        f"momentum 0.9. A training is {of['training']} evaluations of a step; a round "
        f"of metagradient descent, with {flags['points']} key points, {of['round']}: "
        "each step twice forward, and pulled back, which counts as two more. The grid "
        f"is of {len(RATES)} rates and {len(SHAPES)} shapes, tried in an order of its "
        "own in each seed. The best of both is the one of least validation loss."
    )


def spreadsheet(kept: dict) -> str:
    """CSV, a line for each method, level of noise and seed; and for each schedule."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["part", "setting", "method", "seed", "tried", "valid", "accuracy", "right"]
    writer.writerow(head)
    first = kept["flags"]["seed"]
    for setting, found in kept["selection"].items():
        for name, of in found.items():
            for seed, (a, b) in enumerate(
                zip(of["accuracy"], of["right"], strict=True)
            ):
                row = ["selection", setting, name, first + seed, "", "", a, b]
                writer.writerow(row)
    for name in ("mgd", "grid"):
        of = kept["schedule"][name]
        for seed, (valid, accuracy) in enumerate(
            zip(of["valid"], of["accuracy"], strict=True)
        ):
            for tried, (v, a) in enumerate(zip(valid, accuracy, strict=True)):
                row = ["schedule", 0, name, first + seed, tried, v, a, ""]
                writer.writerow(row)
    return out.getvalue()


def brief(found: dict) -> str:
    """A line for the screen while it runs."""
    if "grid" in found:
        two = (values(found[name]["best"], "valid") for name in ("mgd", "grid"))
        return ", ".join(number(x) for x in two)
    return percent(values(found, "accuracy"))


def publish(
    kept: dict, home: Path, say: Callable[[str], None], *, save: bool, page: Path = PAGE
) -> None:
    """table.md, results.csv and picture.png; the tables on the screen, and on the page
    with the picture beside it."""
    from .picture import picture

    text = markdown_of(kept)
    files.write(home / "table.md", text)
    files.write(home / "results.csv", spreadsheet(kept))
    files.write(home / "picture.png", lambda at: picture(kept, at))
    say("\n" + text)
    say(f"table.md, picture.png, results.json and results.csv are in {home}.")
    if save:
        pages.insert(page, PROGRAM, text.strip())
        files.write(page.with_name("mgd.png"), lambda at: picture(kept, at))
        say(f"{page} and mgd.png beside it are written.")


def replot(path: Path, save: bool = False, page: Path = PAGE) -> None:
    """From a results.json to the tables and the picture beside it; and on the page."""
    kept = results(path, lambda kept: (markdown_of(kept), spreadsheet(kept)))
    publish(kept, path.parent, print, save=save, page=page)


def introduction(flags: Mgd) -> list[str]:
    levels = ", ".join(flags.settings)
    return [
        f"run   {flags.home}; killed, it continues when started again",
        f"data  digits: {flags.per_class} images of a class, wrong labels {levels}; "
        f"{100 * flags.keep:g} % kept",
        f"net   two layers of {flags.width}, {flags.updates} updates",
        f"      {len(METHODS)} methods, {flags.seeds} seeds at once; a schedule of "
        f"{flags.points} points, {flags.tune_rounds} rounds",
    ]
