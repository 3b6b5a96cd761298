"""mergekit's methods and parameters, and the leaf functions and keywords they are here.

A parameter is one for each model, or one for all. What has no keyword has no effect on
the numbers, in mergekit neither, and is taken for that reason.
"""

import difflib
import importlib
import inspect
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from ._tensors import MergeError

REQUIRED = object()
_SHARE = (0.0, 1.0)


class Parameter(NamedTuple):
    """The leaf's keyword (None: no effect), mergekit's default, and its translation."""

    keyword: str | None
    default: Any = REQUIRED
    convert: Callable[[float], Any] = float
    within: tuple[float, float] = (-math.inf, math.inf)

    @property
    def is_switch(self) -> bool:
        """Whether a gradient picks one of its values rather than join them."""
        return self.convert in (_flag, _l1)

    @property
    def is_whole(self) -> bool:
        return self.is_switch or self.convert is int


class Method(NamedTuple):
    """One method: its leaf, what it takes, and how it may be cut into parts.

    base: "yes" is required and stands apart from the models; "first" is required and
    is the first of them; "maybe" is apart if it is given; "no" is one like the others.
    parts: "chunks" for what each entry decides alone, "magnitude" where the cut of the
    trimming is for the whole tensor, "whole" else.
    """

    leaf: str
    base: Literal["yes", "first", "maybe", "no"]
    models: tuple[int, int | None]  # at least, at most; without the base
    each: dict[str, Parameter]
    shared: dict[str, Parameter]
    fixed: Mapping[str, Any] = MappingProxyType({})
    adapt: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    parts: Literal["chunks", "magnitude", "whole"] = "whole"
    random: bool = False


def _flag(x: float) -> bool:
    return bool(x)


def _l1(x: float) -> str | None:
    return "l1" if x else None


def _switch(keyword: str | None, default: float, convert: Any = _flag) -> Parameter:
    return Parameter(keyword, default, convert, _SHARE)


def _rows(keywords: dict[str, Any]) -> dict[str, Any]:
    """nuslerp's two switches are one here: flat, along the last axis or the first."""
    flat, first = keywords.pop("flatten"), keywords.pop("row_wise")
    return keywords | {"rows": False if flat else 0 if first else True}


_RESCALE = _switch("rescale", 0.0, _l1)
_RESCALE_ON = _switch("rescale", 1.0, _l1)
_WEIGHT = Parameter("weights")
_DENSITY = Parameter("density", 1.0, within=_SHARE)
_NONE = _switch(None, 0.0)
_SHARED = {"int8_mask": _NONE}


def _weighted(normalize: bool = False, **shared: Parameter) -> dict[str, Any]:
    """What mergekit's generalized task arithmetic takes, whatever it trims."""
    return {
        "normalize": _switch("normalize", float(normalize)),
        "lambda": Parameter("scale", 1.0),
        **shared,
        **_SHARED,
    }


def _sparse(leaf: str, normalize: bool, fixed: dict[str, Any], **more: Any) -> Method:
    each = {
        "weight": _WEIGHT,
        "density": _DENSITY,
        **more.pop("each", {}),
    }
    shared = _weighted(normalize, rescale=more.pop("rescale"))
    return Method(leaf, "yes", (1, None), each, shared, fixed, **more)


_SUM = {"consensus": "linear"}
_ELECTED = {"consensus": "ties"}
_GAMMA = {"gamma": Parameter("gamma", 0.01, within=_SHARE)}
_EPSILON = {"epsilon": Parameter("epsilon", 0.15)}

METHODS: dict[str, Method] = {
    "linear": Method(
        "linear_leaf",
        "no",
        (1, None),
        {"weight": _WEIGHT},
        {"normalize": _switch("normalize", 1.0)},
        parts="chunks",
    ),
    "slerp": Method(
        "slerp_leaf",
        "first",
        (1, 1),
        {},
        {"t": Parameter("t")},
    ),
    "nuslerp": Method(
        "nuslerp_leaf",
        "maybe",
        (2, 2),
        {"weight": _WEIGHT},
        {
            "nuslerp_row_wise": _switch("row_wise", 0.0),
            "nuslerp_flatten": _switch("flatten", 1.0),
        },
        adapt=_rows,
    ),
    "multislerp": Method(
        "multislerp_leaf",
        "maybe",
        (1, None),
        {"weight": _WEIGHT},
        {
            "normalize_weights": _switch("normalize", 1.0),
            "eps": Parameter("eps", 1e-8),
        },
    ),
    "karcher": Method(
        "karcher_leaf",
        "no",
        (1, None),
        {},
        {
            "max_iter": Parameter("max_iter", 10, int, (1.0, 1e6)),
            "tol": Parameter("tol", 1e-5),
        },
    ),
    "task_arithmetic": Method(
        "task_arithmetic_leaf",
        "yes",
        (1, None),
        {"weight": _WEIGHT, "density": _DENSITY._replace(keyword=None)},
        _weighted(rescale=_NONE),
        parts="chunks",
    ),
    "ties": _sparse("ties_leaf", True, {}, rescale=_RESCALE, parts="magnitude"),
    "dare_linear": _sparse("dare_leaf", False, _SUM, rescale=_RESCALE_ON, random=True),
    "dare_ties": _sparse(
        "dare_leaf", False, _ELECTED, rescale=_RESCALE_ON, random=True
    ),
    "della": _sparse(
        "della_leaf", True, _ELECTED, rescale=_RESCALE_ON, random=True, each=_EPSILON
    ),
    "della_linear": _sparse(
        "della_leaf", False, _SUM, rescale=_RESCALE_ON, random=True, each=_EPSILON
    ),
    "breadcrumbs": _sparse(
        "breadcrumbs_leaf", False, _SUM, rescale=_RESCALE, each=_GAMMA
    ),
    "breadcrumbs_ties": _sparse(
        "breadcrumbs_leaf", False, _ELECTED, rescale=_RESCALE, each=_GAMMA
    ),
    "sce": Method(
        "sce_leaf",
        "yes",
        (1, None),
        {},
        {"select_topk": Parameter("select", 1.0, within=_SHARE), **_SHARED},
    ),
    "ram": Method(
        "ram_leaf",
        "yes",
        (1, None),
        {},
        {"epsilon": Parameter("epsilon", 1e-5)},
        {"r": 0.0},
        parts="chunks",
    ),
    "ramplus_tl": Method(
        "ram_leaf",
        "yes",
        (1, None),
        {},
        {
            "r": Parameter("r", 0.1),
            "alpha": Parameter("alpha", 0.2),
            "epsilon": Parameter("epsilon", 1e-5),
        },
    ),
    "model_stock": Method(
        "model_stock_leaf",
        "yes",
        (2, None),
        {},
        {"filter_wise": _switch("rows", 0.0)},
    ),
    "nearswap": Method(
        "nearswap_leaf", "yes", (1, 1), {}, {"t": Parameter("t")}, parts="chunks"
    ),
    "arcee_fusion": Method("arcee_fusion_leaf", "yes", (1, 1), {}, {}),
    "passthrough": Method(
        "linear_leaf",
        "no",
        (1, 1),
        {"scale": Parameter("weights", 1.0)},
        {},
        {"normalize": False},
        parts="chunks",
    ),
}


def leaf_of(name: str, node: Any = None) -> Callable[..., Any]:
    """The leaf function of a method; MergeError where there is none."""
    if name not in METHODS:
        near = difflib.get_close_matches(name.casefold(), METHODS)
        hint = f"; did you mean {near[0]}?" if near else f", of {', '.join(METHODS)}"
        said = f"{name!r:.40} is no method{hint}"
        raise MergeError(said) if node is None else node.bad(said)
    family = importlib.import_module("jaxtricks.merging")
    leaf = getattr(family, METHODS[name].leaf)
    takes = inspect.signature(leaf).parameters
    first = next(iter(takes))

    def call(base, stack, **keywords):
        if "base" not in takes:
            return leaf(stack, **keywords)
        if first != "base":
            return leaf(stack, base=base, **keywords)
        return leaf(base, stack[0] if "x" in takes else stack, **keywords)

    return call
