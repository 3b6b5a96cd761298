"""The result: a table for each problem, what it shows, and files to read."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import files, pages, runs
from ..small.kept import results
from ..small.tables import markdown
from .config import METHODS, Maml

PAGE = Path(__file__).with_name("README.md")
PROGRAM = "experiments.maml"
NAMES = {"maml": "MAML", "fomaml": "first order", "joint": "joint", "random": "random"}
RESAMPLES = 2000
AT = 5  # steps after which initialisations are compared
WANTED = 0.2  # of joint pretraining's error, at most


class Interval(NamedTuple):
    """A number with its 95 % interval over tasks."""

    value: float
    low: float
    high: float


def of(kept: dict, problem: str, method: str) -> np.ndarray:
    """f64[tasks, steps + 1]."""
    return np.asarray(kept["problems"][problem][method]["curves"], np.float64)


def ratio(ours: np.ndarray, theirs: np.ndarray, seed: int = 0) -> Interval:
    """mean(ours) / mean(theirs) over the same tasks, by a bootstrap of the tasks."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(ours), (RESAMPLES, len(ours)))
    drawn = ours[rows].mean(1) / theirs[rows].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(ours.mean() / theirs.mean()), float(low), float(high))


def shown_steps(flags: dict) -> list[int]:
    """The columns: none, one, five, and all steps."""
    return sorted({0, 1, AT, flags["test_steps"]})


def table(kept: dict, problem: str) -> str:
    """Means over tasks with half of their 95 % intervals."""
    steps = shown_steps(kept["flags"])
    words = {0: "before", 1: "after 1 step"}
    head = ["initialisation", "rate", *(words.get(k, f"{k} steps") for k in steps)]
    scale, digits = (1, 3) if problem == "sinusoid" else (100, 1)
    cells = []
    for method in METHODS:
        found = scale * of(kept, problem, method)
        means = [runs.interval(found[:, k].tolist()) for k in steps]
        rate = f"{kept['problems'][problem][method]['rate']:g}"
        cells.append([NAMES[method], rate, *(_number(*m, digits) for m in means)])
    return markdown(head, cells)


def _number(mean: float, half: float, digits: int) -> str:
    if not math.isfinite(mean):
        return "not finite"
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def verdict(kept: dict, problem: str) -> str:
    return waves(kept) if problem == "sinusoid" else new_digits(kept)


def waves(kept: dict) -> str:
    """MAML's error against joint pretraining's, and against what is wanted."""
    ours, theirs = (of(kept, "sinusoid", k)[:, AT] for k in ("maml", "joint"))
    found = ratio(ours, theirs)
    if not math.isfinite(found.value):
        return f"After {AT} steps an error is not finite."
    holds = "at most" if found.high <= WANTED else "not surely at most"
    means = [kept["problems"]["sinusoid"][k]["seeds"] for k in ("maml", "joint")]
    each = [a[AT] / b[AT] for a, b in zip(*means, strict=True)]
    seeds = ", ".join(f"{x:.3f}" for x in each)
    return (
        f"After {AT} steps MAML's error is {found.value:.3f} of joint pretraining's "
        f"(95 % interval over tasks {found.low:.3f} to {found.high:.3f}; by seed "
        f"{seeds}): {holds} {WANTED:g}."
    )


def new_digits(kept: dict) -> str:
    """MAML's accuracy against every other's, task by task."""
    said = []
    for other in METHODS[1:]:
        apart = 100 * (of(kept, "digits", "maml") - of(kept, "digits", other))[:, AT]
        mean, half = runs.interval(apart.tolist())
        said.append(f"{NAMES[other]} by {mean:+.1f} ± {half:.1f}")
    return f"After {AT} steps MAML's accuracy differs from {', '.join(said)} points."


def markdown_of(kept: dict) -> str:
    flags = kept["flags"]
    images = f"{flags['digits_shots']} image{'s' if flags['digits_shots'] > 1 else ''}"
    heads = {
        "sinusoid": f"### Sine waves from {flags['shots']} points\n\n"
        "Mean squared error on new waves",
        "digits": f"### {flags['ways']} digits never seen, {images} of each\n\n"
        "Accuracy in percent on new tasks",
    }
    parts = []
    for problem in kept["problems"]:
        several = flags["seeds"] > 1
        seeds = f", each the mean of {flags['seeds']} seeds" if several else ""
        text = f"{heads[problem]}: means of {flags['tasks']} tasks{seeds}, ± half of "
        text += "their 95 % confidence intervals. Rate: of adaptation, the best after "
        text += f"{AT} steps on other tasks."
        parts += [text, table(kept, problem), verdict(kept, problem)]
    return "\n\n".join(parts) + "\n"


def publish(kept: dict, home: Path, say: Callable[[str], None]) -> None:
    """table.md and picture.png; and the tables on the screen."""
    from .picture import picture

    files.write(home / "table.md", markdown_of(kept))
    files.write(home / "picture.png", lambda at: picture(kept, at))
    say("\n" + markdown_of(kept))
    say(f"table.md, picture.png and results.json are in {home}.")


def look(kept: dict) -> None:
    """Finds all that is shown, or fails."""
    _ = markdown_of(kept), kept["problems"]["sinusoid"]["maml"]["fit"]


def replot(path: Path, save: bool = False, page: Path = PAGE) -> None:
    """From a results.json to the table and the picture beside it; and on the page."""
    kept = results(path, look)
    publish(kept, path.parent, print)
    if save:
        from .picture import picture

        pages.insert(page, PROGRAM, markdown_of(kept).strip())
        at = page.with_name("curves.png")
        files.write(at, lambda at: picture(kept, at))
        print(f"{page} and {at} are written.")


def introduction(flags: Maml) -> list[str]:
    """What is about to happen."""
    seeds = f"{flags.seeds} seeds of each at once" if flags.seeds > 1 else "one seed"
    return [
        f"run   {flags.home}; killed, it continues when started again",
        f"      {', '.join(NAMES.values())}; {seeds}, {flags.tasks} new tasks",
    ]
