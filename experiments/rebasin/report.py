"""The result: two tables a model, what they show, and files to read."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import files, runs
from ..small.kept import results
from ..small.sets import Images
from ..small.tables import markdown, percent
from .config import Rebasin

MATCHED = {
    "nothing": "as trained",
    "weights": "aligned by weights",
    "activations": "aligned by activations",
}
NAMES = {"mlp": "perceptron", "convnet": "convnet"}


def barriers(pairs: Sequence[dict]) -> str:
    """A line for each matching."""
    head = ("second network", "barrier, held out", "barrier, training")
    cells = [
        [said, *(nats([p[key][how] for p in pairs]) for key in KEYS)]
        for how, said in MATCHED.items()
    ]
    return markdown(head, cells)


KEYS = ("barrier", "training_barrier")


def merges(pairs: Sequence[dict], flags: dict) -> str:
    """A line for each matching, and one for the wider merges."""
    head = ("merge", "units", "average", "with REPAIR", "PLeaS", "PLeaS vs average")
    wider = f"{MATCHED['weights']}, {100 * flags['apart']:g} % kept apart"
    lines = {**MATCHED, "wider": wider}
    cells = []
    for how, said in lines.items():
        size = f"{1 + flags['apart']:g}x" if how == "wider" else "1x"
        own = [accuracies(pairs, how, merge) for merge in ("average", "repaired")]
        fitted = accuracies(pairs, how, "pleas")
        apart = differences(pairs, how, "pleas", "average")
        shown = [percent(x) if x else "" for x in (*own, fitted)]
        cells.append([said, size, *shown, percent(apart, "+")])
    return markdown(head, cells)


def accuracies(pairs: Sequence[dict], how: str, merge: str) -> list[float]:
    """One for each pair; none if it was not merged so."""
    found = [pair["merged"][how].get(merge) for pair in pairs]
    return [runs.number(of["accuracy"]) for of in found if of]


def differences(
    pairs: Sequence[dict], how: str, merge: str, than: str, key: str = "accuracy"
) -> list[float]:
    """Pair by pair."""
    both = (
        [runs.number(p["merged"][how][m][key]) for p in pairs] for m in (merge, than)
    )
    return [a - b for a, b in zip(*both, strict=True)]


def nats(values: Sequence[float], sign: str = "") -> str:
    """The mean and half of its 95 % interval."""
    mean, half = runs.interval([runs.number(x) for x in values])
    if not math.isfinite(mean):
        return "not finite"
    said = f"{mean:{sign}.3f}"
    return f"{said} ± {half:.3f}" if math.isfinite(half) else said


def verdict(pairs: Sequence[dict]) -> str:
    """What differs beyond chance, and what does not."""
    said = []
    for how in ("weights", "activations"):
        mean, _ = runs.interval([p["barrier"]["nothing"] for p in pairs])
        left, _ = runs.interval([p["barrier"][how] for p in pairs])
        part = f"{100 * left / mean:.1f} % of" if mean > 0 else "no more than"
        said.append(f"{part} the barrier is left when {MATCHED[how]}")
    parts = [f"Of the means, {'; '.join(said)}."]
    for how in MATCHED:
        loss = differences(pairs, how, "pleas", "average", "loss")
        right = differences(pairs, how, "pleas", "average")
        words = f"{_told(right, 'more', 'less')} accurate (loss {nats(loss, '+')} nats)"
        parts.append(f"Second network {MATCHED[how]}: PLeaS is {words}.")
    return " ".join(parts)


def _told(values: Sequence[float], more: str, less: str) -> str:
    mean, half = runs.interval(values)
    if not math.isfinite(half):
        return f"{more if mean > 0 else less}, on too few pairs to say,"
    if abs(mean) <= half:
        return f"neither {more} nor {less}, as far as the pairs can tell,"
    return more if mean > 0 else less


def markdown_of(kept: dict) -> str:
    """All tables, with what they show."""
    flags, parts = kept["flags"], [explain(kept)]
    for model, pairs in kept["models"].items():
        both = [sum(pair["each"]) / len(pair["each"]) for pair in pairs]
        together = percent([runs.number(pair["ensemble"]) for pair in pairs])
        parts += [
            f"### {heading(model, flags)}",
            f"Each network by itself is {percent(both)} % accurate, the mean of two "
            f"networks' logits, twice the size, {together} %.",
            barriers(pairs),
            merges(pairs, flags),
            verdict(pairs),
        ]
    return "\n\n".join(parts) + "\n"


def heading(model: str, flags: dict) -> str:
    if model == "mlp":
        return f"Perceptron, two hidden layers of {flags['width']}"
    sizes = [k * flags["channels"] for k in (1, 2, 4)]
    return f"Convnet, {sizes[0]}, {sizes[1]} and {sizes[2]} channels"


def explain(kept: dict) -> str:
    """What the numbers are."""
    flags = kept["flags"]
    pairs = len(next(iter(kept["models"].values())))
    return (
        f"Networks trained apart on {Path(flags['data']).name} for {flags['epochs']} "
        f"epochs, {pairs} pairs of each model. The barrier is how far the cross "
        "entropy, in nats, rises above the chord on the line between the two, on "
        f"{flags['points']} points; accuracies are in percent of the held-out images, "
        "differences taken pair by pair: means ± half of their 95 % confidence "
        "intervals over the pairs (Student's t)."
    )


def introduction(flags: Rebasin, data: Images) -> list[str]:
    """What is about to happen."""
    models = ", ".join(heading(model, flags.numbers()) for model in flags.models)
    return [
        f"run   {flags.home}; killed, it continues when started again",
        f"data  {flags.data}: {len(data.images)} images to train on, "
        f"{len(data.held_out)} held out",
        f"nets  {models}; {flags.pairs} pairs of each",
    ]


def publish(kept: dict, home: Path, say: Callable[[str], None]) -> None:
    """table.md and picture.png; and the tables on the screen."""
    from .picture import picture

    text = markdown_of(kept)
    files.write(home / "table.md", text)
    panels = [(heading(m, kept["flags"]), of) for m, of in kept["models"].items()]
    files.write(home / "picture.png", lambda at: picture(panels, at))
    say("\n" + text)
    say(f"table.md, picture.png and results.json are in {home}.")


def look(kept: dict) -> None:
    """Finds all that is shown, or fails."""
    markdown_of(kept)
    _ = [pair["losses"]["nothing"] for of in kept["models"].values() for pair in of]


def replot(path: Path) -> None:
    """From a results.json to the table and the picture beside it."""
    kept = results(path, look)
    publish(kept, path.parent, print)
