"""Whether a recipe asks for what its method does, and what a leaf then gets."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ._methods import REQUIRED, Method, Parameter
from ._recipe import Module, Recipe, Slice, Source
from ._settings import Settings, lookup
from ._yaml import Node


class Input(NamedTuple):
    """A tensor of one source, where parameters of its own hold."""

    source: Source
    name: str


def base_of(recipe: Recipe, part: Slice) -> str | None:
    """The base model of a slice, by its own key or the recipe's."""
    model = part.base or recipe.base
    return None if model is None else str(model)


def apart_of(recipe: Recipe, method: Method, part: Slice) -> str | None:
    """The base where the method has one that stands apart from the models."""
    return base_of(recipe, part) if method.base != "no" else None


def check(recipe: Recipe, method: Method) -> Iterator[str]:
    """Notes about what has no effect; MergeError for what the method cannot do."""
    for module in recipe.modules:
        for part in module.slices:
            yield from _check_models(recipe, method, part)
    for module in recipe.modules:
        yield from _known(recipe, method, module.parameters)
        for part in module.slices:
            yield from _known(recipe, method, part.parameters)
            for source in part.sources:
                yield from _known(recipe, method, source.parameters, one=True)
                if str(source.model) == apart_of(recipe, method, part):
                    for node in source.parameters.values():
                        yield (
                            f"line {node.line}: {node.key} is of the base, which has "
                            "no such parameter: no effect"
                        )
    yield from _known(recipe, method, recipe.parameters)


def _check_models(recipe: Recipe, method: Method, part: Slice) -> Iterator[str]:
    name, base = recipe.method.value, base_of(recipe, part)
    named = [str(s.model) for s in part.sources]
    for i, one in enumerate(named):
        if one in named[:i] and method.base != "no":
            raise part.sources[i].model.node.bad(f"{one} is listed twice")
    if method.base in ("yes", "first") and base is None:
        raise part.node.bad(f"{name} wanted a base_model")
    model = part.base or recipe.base
    if method.base == "no" and model is not None and base not in named:
        if part.sources[0].layers is None:
            said = f"{name} has no base: list {base} among the models, or drop it"
            raise model.node.bad(said)
        line = f"line {model.node.line}: base_model"
        yield f"{line} gives config.json and tokenizer alone"
    apart = apart_of(recipe, method, part)
    if apart is not None and part.sources[0].layers and apart not in named:
        raise part.node.bad(f"wanted the layer_range of the base {apart}, too")
    count = len([x for x in named if x != apart])
    least, most = method.models
    if count < least or (most is not None and count > most):
        wanted = f"{least}" if least == most else f"{least} or more"
        but = " besides the base" if apart is not None else ""
        many = "model" if wanted == "1" else "models"
        raise part.node.bad(f"{name} wanted {wanted} {many}{but}, came {count}")


def _known(
    recipe: Recipe, method: Method, given: Settings, *, one: bool = False
) -> Iterator[str]:
    """Parameters that the method has: for all models, or beside one of them."""
    each, shared = method.each, method.shared
    for name, node in given.items():
        if one and name in shared:
            raise node.bad("is one for all models: put it under parameters")
        if name not in each and name not in shared:
            known = ", ".join([*each, *([] if one else shared)]) or "none"
            raise node.bad(f"unknown to {recipe.method.value}; it has {known}")
        if (each.get(name) or shared[name]).keyword is None:
            yield (
                f"line {node.line}: {node.key} has no effect on the numbers of "
                f"{recipe.method.value}"
            )


def keywords(
    recipe: Recipe,
    method: Method,
    module: Module,
    part: Slice,
    name: str,
    models: Sequence[Input],
    t: float,
) -> dict[str, Any]:
    """The leaf's keywords for the tensor `name`, at depth t in [0, 1].

    The nearest setting holds: of the source, its slice, the module, the recipe.
    """
    found = dict(method.fixed)
    around = [part.parameters, module.parameters, recipe.parameters]
    method_name = recipe.method.value
    for key, parameter in method.each.items():
        values = []
        for source, tensor in models:
            places, node = [source.parameters, *around], source.model.node
            whose = f"{method_name} of {source.model}"
            values.append(_value(key, parameter, tensor, t, places, node, whose))
        if parameter.keyword is not None:
            found[parameter.keyword] = values
    for key, parameter in method.shared.items():
        value = _value(key, parameter, name, t, around, part.node, method_name)
        if parameter.keyword is not None:
            found[parameter.keyword] = value
    return found if method.adapt is None else method.adapt(found)


def _value(
    key: str,
    parameter: Parameter,
    tensor: str,
    t: float,
    places: Sequence[Settings],
    node: Node,
    whose: str,
) -> Any:
    hit = lookup(key, tensor, t, places, discrete=parameter.is_switch)
    if hit is None:
        if parameter.default is REQUIRED:
            raise node.bad(f"wanted the parameter {key} for {whose} (tensor {tensor})")
        return parameter.convert(parameter.default)
    value, place = hit
    low, high = parameter.within
    if not low <= value <= high:
        raise place.bad(f"wanted in [{low:g}, {high:g}], came {value:g}")
    if parameter.is_whole and value != int(value):
        raise place.bad(f"wanted a whole number, came {value:g}")
    return parameter.convert(value)


def attempt(
    recipe: Recipe,
    method: Method,
    leaf: Callable,
    settings: dict[str, Any],
    name: str,
    n: int,
) -> None:
    """The leaf on one entry, so that what it refuses is known before all is read."""
    stack, base = np.ones((n, 1), np.float32), np.zeros(1, np.float32)
    key = {"key": np.random.default_rng(0)} if method.random else {}
    try:
        with np.errstate(all="ignore"):
            found = leaf(base, stack, **settings, **key)
    except ValueError as error:
        said = " ".join(str(error).split())
        raise recipe.method.bad(f"{said} (tensor {name})") from None
    if not np.isfinite(found).all():
        said = f"its settings give {found.item()} (tensor {name})"
        raise recipe.method.bad(f"{said}: do the weights sum to 0?")
