"""What the recipe that was resolved does, and where that is not what others do."""

import importlib
import inspect
import re
from collections.abc import Iterator

from ._compute import how
from ._methods import REQUIRED
from ._plan import Plan
from ._recipe import Recipe
from ._table import effective, said

_ALWAYS = (
    "numbers: computed in f32 at least (f64 stays), cast once when written; mergekit "
    "casts the inputs to `dtype` first and computes in it"
)
_MAGNITUDE = (
    "trimming: each tensor by itself, as mergekit; the authors trim the whole model "
    "at once. Of equal magnitudes at the cut the first ones are kept; by mergekit what "
    "its sort leaves there"
)
_SIGNS = (
    "signs: elected by the sum of the weighted changes, 0 counts as +, as mergekit; "
    "the authors give a draw the sign that is elected more often"
)
_AGREEING = (
    "divisor: the sum of the weights that agree with the sign, as mergekit; the "
    "authors divide by their count"
)
_RANDOM = (
    "random masks: numpy's, from the seed and the tensor's name; mergekit's are "
    "torch's, so the same recipe keeps other entries"
)
_L1 = (
    "rescale: by the L1 norm before and after, as mergekit; the DARE paper divides by p"
)
_SLICES = (
    "outside the layers: what comes before them is of the first slice, what comes "
    "after of the last, told by the tensor's name; mergekit has a list of architectures"
)
_NORMALIZED = (
    "weights: divided by their sum, as mergekit's default; `normalize: false` takes "
    "them as they are"
)


def explanation(recipe: Recipe, plan: Plan) -> Iterator[str]:
    """Lines for people, from the plan itself."""
    method = plan.method
    merged = [s for s in plan.steps if s.keywords is not None]
    keywords = merged[0].keywords if merged else None
    yield f"{plan.name}: jaxtricks.merging.{method.leaf}"
    if merged and keywords is not None:
        yield f"  {merged[0].name}: {said(effective(merged[0]))}"
        if len({said(effective(s)) for s in merged}) > 1:
            yield "  other tensors have other settings: see --dry-run"
    keywords = keywords or {}
    yield from _defaults(recipe, plan)
    if plan.name != "passthrough":  # which averages nothing
        yield _source(method.leaf)
    yield _ALWAYS
    elects = method.leaf == "ties_leaf" or keywords.get("consensus") == "ties"
    for line, holds in (
        (_MAGNITUDE, "density" in keywords and method.parts == "magnitude"),
        (_SIGNS, elects),
        (_AGREEING, elects and keywords.get("normalize")),
        (_RANDOM, method.random),
        (_L1, keywords.get("rescale") == "l1"),
        (_NORMALIZED, plan.name == "linear" and keywords.get("normalize")),
        (_SLICES, len(recipe.modules[0].slices) > 1),
    ):
        if holds:
            yield line
    kept = [s.name for s in plan.steps if s.keywords is None]
    if kept:
        more = f" and {len(kept) - 5} more" if len(kept) > 5 else ""
        names = ", ".join(kept[:5])
        yield f"no floats, so copied from the base or first model: {names}{more}"
    if any(how(s, method) == "whole" for s in merged):
        yield "memory: whole tensors of all models at once"
    else:
        yield "memory: a part of each tensor at once"
    yield from plan.notes


def _defaults(recipe: Recipe, plan: Plan) -> Iterator[str]:
    """Parameters that the recipe leaves out."""
    given = set(recipe.parameters)
    for module in recipe.modules:
        given |= set(module.parameters)
        for part in module.slices:
            given |= set(part.parameters)
            given = given.union(*(s.parameters for s in part.sources))
    left = [
        f"{name}={parameter.default:g}"
        for name, parameter in {**plan.method.each, **plan.method.shared}.items()
        if parameter.keyword and name not in given and parameter.default is not REQUIRED
    ]
    if left:
        yield f"not in the recipe, so mergekit's default: {', '.join(left)}"


def _source(leaf: str) -> str:
    """The paper, and how the function differs from it, as its documentation says."""
    family = importlib.import_module("jaxtricks.merging")
    doc = inspect.getdoc(getattr(family, leaf.removesuffix("_leaf"))) or ""
    found = re.search(r"^Source: (.*?)(?=^\S|\Z)", doc, re.M | re.S)
    return "source: " + (" ".join(found[1].split()) if found else "definition.")
