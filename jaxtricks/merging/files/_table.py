"""The plan as a table: what is done to which tensors, and what it takes."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from . import _layers
from ._plan import Plan, Step
from ._progress import bytes_said

_HEADS = ("tensors", "count", "method", "settings", "bytes", "memory")


def report(plan: Plan, needs: Mapping[str, int]) -> Iterator[str]:
    """What all tensors have in common, then a row for each pattern of names.

    `needs`: bytes in flight, by tensor.
    """
    same = common(plan)
    for step in plan.steps:
        if step.keywords is not None:
            models = ", ".join(model for model, _ in step.inputs)
            base = f"; base: {step.base[0]}" if step.base else ""
            yield f"models: {models}{base}"
            break
    if same:
        yield f"all: {said(same)}"
    rows = [_HEADS, *table(plan, needs, same)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (x.ljust(w) for x, w in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def table(
    plan: Plan, needs: Mapping[str, int], but: Collection[str]
) -> Iterator[tuple[str, ...]]:
    """The rows, without the settings that are in `but`."""
    groups: dict[tuple[str, bool], list[Step]] = {}
    for step in plan.steps:
        key = _layers.pattern(step.name), step.keywords is None
        groups.setdefault(key, []).append(step)
    for (pattern, copied), steps in groups.items():
        found = list(dict.fromkeys(said(effective(s), but) for s in steps))
        yield (
            pattern,
            str(len(steps)),
            "copy" if copied else plan.name,
            found[0] if len(found) == 1 else f"{found[0]} ... {found[-1]}",
            bytes_said(sum(s.nbytes for s in steps)),
            bytes_said(max(needs[s.name] for s in steps)),
        )


def common(plan: Plan) -> dict[str, Any]:
    """Settings of all models together that no tensor has otherwise."""
    given = [s.keywords for s in plan.steps if s.keywords is not None]
    return {
        name: value
        for name, value in (given[0] if given else {}).items()
        if not isinstance(value, list) and all(k[name] == value for k in given)
    }


def effective(step: Step) -> dict[str, Any]:
    """The keywords, weights as they act: shares of the sum where that is divided by."""
    found = dict(step.keywords or {})
    weights = found.get("weights")
    if weights and found.get("normalize") and sum(weights):
        found["weights"] = [x / sum(weights) for x in weights]
    return found


def said(settings: Mapping[str, Any], but: Collection[str] = ()) -> str:
    """name=value, name=[value value], ..."""
    parts = []
    for name, value in settings.items():
        if name in but:
            continue
        if isinstance(value, list):
            value = "[" + " ".join(f"{x:.4g}" for x in value) + "]"
        elif isinstance(value, float):
            value = f"{value:.4g}"
        parts.append(f"{name}={value}")
    return " ".join(parts)
