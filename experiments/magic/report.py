"""The result: a table, what `check` said, and files to read."""

import csv
import io
import math
import statistics
from collections.abc import Callable
from pathlib import Path

from .. import files, pages, runs
from ..small.kept import results
from ..small.tables import markdown, percent
from .config import METHODS, TRAINERS, Magic

PAGE = Path(__file__).with_name("README.md")
PROGRAM = "experiments.magic"
WANTED = {0.01: 0.90, 0.05: 0.85}  # of the smooth trainer, by what is left out


def scores(kept: dict, trainer: str, method: str, part: int) -> list[float]:
    """One for each seed: the mean over its targets."""
    found = []
    for seed in kept["results"][trainer]:
        values = [runs.number(x) for x in seed["parts"][part]["scores"][method]]
        found.append(statistics.fmean(values))
    return found


def number(values: list[float]) -> str:
    """The mean, and half of its 95 % interval where there are seeds for one."""
    mean, half = runs.interval(values)
    if not math.isfinite(mean):
        return "not finite"
    return f"{mean:.3f} ± {half:.3f}" if math.isfinite(half) else f"{mean:.3f}"


def table(kept: dict) -> str:
    drops = kept["flags"]["drop"]
    head = ["trainer", "method", *(f"{100 * part:g} % left out" for part in drops)]
    cells = [
        [
            trainer,
            method,
            *(number(scores(kept, trainer, method, i)) for i in range(len(drops))),
        ]
        for trainer in TRAINERS
        for method in METHODS
    ]
    return markdown(head, cells)


def trainers(kept: dict) -> str:
    """A table of what the trainers are worth and what `check` makes of them."""
    head = ["trainer", "accuracy (%)", "metasmoothness", "gradient error", "verdict"]
    cells = []
    for name in TRAINERS:
        check = kept["checks"][name]
        right = [runs.number(seed["accuracy"]) for seed in kept["results"][name]]
        smooth = [runs.number(x) for x in check["smoothness"]]
        said = ", ".join(f"{x:.3f}" for x in smooth)
        error = runs.number(check["error"])
        verdict = "; ".join(check["advice"]) or "nothing to change"
        cells.append([name, percent(right), said, f"{error:.2g}", verdict])
    return markdown(head, cells)


def verdict(kept: dict) -> list[str]:
    """What holds and what does not, of what is asked of the smooth trainer."""
    said = []
    for i, part in enumerate(kept["flags"]["drop"]):
        best = scores(kept, "smooth", "magic", i)
        mean, half = runs.interval(best)
        if part in WANTED:
            holds = "at least" if mean >= WANTED[part] else "below"
            said.append(f"At {100 * part:g} % magic's score is {holds} {WANTED[part]}.")
        for method in METHODS[1:]:
            other = scores(kept, "smooth", method, i)
            apart = [a - b for a, b in zip(best, other, strict=True)]
            mean, half = runs.interval(apart)
            if math.isfinite(half) and not mean > half:
                said.append(f"At {100 * part:g} % {method} cannot be told from magic.")
    if kept["flags"]["seeds"] == 1:
        said.append("One seed tells no interval.")
    flagged = bool(kept["checks"]["unsmooth"]["advice"])
    said.append(f"The unsmooth trainer is {'flagged' if flagged else 'not flagged'}.")
    if kept["checks"]["smooth"]["advice"]:
        said.append("The smooth trainer is flagged, too.")
    return said


def markdown_of(kept: dict) -> str:
    parts = [explain(kept), table(kept), trainers(kept), " ".join(verdict(kept))]
    return "\n\n".join(parts) + "\n"


def explain(kept: dict) -> str:
    flags = kept["flags"]
    return (
        f"Digits, {flags['per_class']} images of a class, a perceptron of two hidden "
        f"layers of {flags['width']}, Adam, {flags['updates']} updates of "
        f"{flags['batch_size']}. The linear datamodeling score: Spearman's correlation "
        f"of predicted and true losses of a held-out image over {flags['subsets']} "
        f"trainings, each without a random part of the images; the mean over "
        f"{flags['targets']} images, and over {flags['seeds']} seeds ± half of the "
        "95 % confidence interval (Student's t over seeds). Influence functions and "
        f"TRAK have the best of {len(flags['dampings'])} dampings, TRAK also the "
        f"better of one model and {flags['models']}, for every seed and part left out, "
        "chosen on the scores that are shown. Accuracy on held-out images. "
        "Metasmoothness at steps of 0.01 and 0.001, and the error of the gradient in "
        "example weights against central differences, by `metagrad.check`, of the "
        "first seed."
    )


def spreadsheet(kept: dict) -> str:
    """CSV, a line for each trainer, seed, part, target and subset."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [method.replace(" ", "_") for method in METHODS]
    writer.writerow(["trainer", "seed", "drop", "target", "subset", "actual", *names])
    for trainer in TRAINERS:
        for s, seed in enumerate(kept["results"][trainer]):
            for drop, part in zip(kept["flags"]["drop"], seed["parts"], strict=True):
                for t, actual in enumerate(part["actual"]):
                    for k, true in enumerate(actual):
                        said = [part["predicted"][m][t][k] for m in METHODS]
                        place = [trainer, kept["flags"]["seed"] + s, drop, t, k]
                        writer.writerow([*place, true, *said])
    return out.getvalue()


def brief(found: dict) -> str:
    """A line for the screen while it runs."""
    if "parts" not in found:
        return f"error {found['error']:.2g}; {'; '.join(found['advice']) or 'all well'}"
    scores = [part["scores"]["magic"] for part in found["parts"]]
    means = [statistics.fmean(map(runs.number, of)) for of in scores]
    return ", ".join(f"{mean:.3f}" for mean in means)


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
        files.write(page.with_name("magic.png"), lambda at: picture(kept, at))
        say(f"{page} and magic.png beside it are written.")


def replot(path: Path, save: bool = False, page: Path = PAGE) -> None:
    """From a results.json to the table and the picture beside it; and on the page."""
    kept = results(path, markdown_of)
    publish(kept, path.parent, print, save=save, page=page)


def introduction(flags: Magic) -> list[str]:
    trainings = flags.subsets * len(flags.drop) * flags.seeds
    parts = ", ".join(f"{100 * part:g}" for part in flags.drop)
    return [
        f"run   {flags.home}; killed, it continues when started again",
        f"data  digits: {flags.per_class} images of a class, {parts} % left out",
        f"net   two layers of {flags.width}, {flags.updates} updates of Adam",
        f"      {len(TRAINERS)} trainers, {flags.seeds} seeds, {flags.targets} targets,"
        f" {trainings} trainings each",
    ]
