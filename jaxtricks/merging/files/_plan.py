"""What is done to which tensor, decided before anything is written."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from . import _fit, _layers
from ._contents import Contents, hint
from ._fit import Input
from ._methods import METHODS, Method, leaf_of
from ._recipe import Module, Recipe, Slice
from ._tensors import Checkpoint, MergeError


class Step(NamedTuple):
    """One tensor of the result.

    inputs: (model, tensor) of the models; base: the same of the base that stands apart.
    keywords: what the leaf gets; None copies the first input.
    """

    name: str
    out: np.dtype
    shape: tuple[int, ...]
    inputs: tuple[tuple[str, str], ...]
    base: tuple[str, str] | None
    keywords: dict[str, Any] | None

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        return self.size * self.out.itemsize


class Plan(NamedTuple):
    """All steps, in the order of the result."""

    method: Method
    name: str
    steps: tuple[Step, ...]
    notes: tuple[str, ...]
    layers: dict[str, int]  # of the result, by stack


def plan(
    recipe: Recipe,
    checkpoints: Mapping[str, Checkpoint],
    *,
    tied: Mapping[str, str] | None = None,
) -> Plan:
    """The steps of a recipe over checkpoints by the models' names, or MergeError."""
    name = recipe.method.value
    leaf, method = leaf_of(name, recipe.method), METHODS[name]
    notes = tuple(dict.fromkeys(_fit.check(recipe, method)))
    planner = _Planner(recipe, method, Contents(checkpoints, dict(tied or {})))
    for module in recipe.modules:
        planner.module(module)
    planner.check_covered()
    if not planner.steps:
        raise recipe.node.bad("no tensor is merged")
    steps = tuple(planner.steps.values())
    tried = {repr(s.keywords): s for s in steps if s.keywords is not None}
    for step in tried.values():
        given = step.keywords or {}
        _fit.attempt(recipe, method, leaf, given, step.name, len(step.inputs))
    notes += (planner.note,) if planner.note else ()
    return Plan(method, name, steps, notes, planner.layers)


class _Planner:
    def __init__(self, recipe: Recipe, method: Method, contents: Contents):
        self._recipe, self._method, self._contents = recipe, method, contents
        self.steps: dict[str, Step] = {}
        self.layers: dict[str, int] = {}  # of the result so far, by stack
        self.note = ""  # about dtypes that differ

    def module(self, module: Module) -> None:
        """What is before the layers, the layers, and what is after them."""
        first, last = module.slices[0], module.slices[-1]
        reference = self._reference(first)
        names = self._contents.names(reference)
        stacks = _layers.depths(names)
        mine = self._stacks_of(module, stacks)
        whole = set(mine) == set(stacks) and len(self._recipe.modules) == 1
        loose = [name for name in names if _layers.place(name) is None]
        if module.name not in ("", "default") and not whole:
            loose = []
        for name in loose:
            if not _layers.is_after(name):
                self._loose(module, first, name)
        if first.sources[0].layers is None:
            for stack in mine:
                self._check_depth(first, stack, stacks[stack])
                self._stack(module, first, stack, 0, stacks[stack])
        elif len(mine) > 1:
            said = ", ".join(sorted(mine))
            raise module.node.bad(f"slices of one stack, came {said}: use modules")
        else:
            for part in module.slices:
                self._slice(module, part, mine)
        for name in loose:
            if _layers.is_after(name):
                self._loose(module, last, name)

    def _check_depth(self, part: Slice, stack: str, count: int) -> None:
        """MergeError for layers past the last one of the reference."""
        for model in (str(source.model) for source in part.sources):
            for layer, rests in self._contents.layers(model, stack).items():
                if layer >= count:
                    name = f"{stack}{layer}{rests[0]}"
                    self._contents.lost(model, name, self._reference(part))

    def _reference(self, part: Slice) -> str:
        """The model that says which tensors there are: the base, else the first."""
        named = [str(s.model) for s in part.sources]
        base = _fit.base_of(self._recipe, part)
        layered = part.sources[0].layers is not None
        if base is None or (layered and base not in named):
            return named[0]
        return base

    def _stacks_of(self, module: Module, stacks: dict[str, int]) -> list[str]:
        if module.name == "" or (module.name == "default" and len(stacks) < 2):
            return list(stacks)
        if module.name == "default":
            return []
        known = {stack: _layers.Place(stack, 0, "").name for stack in stacks}
        found = [s for s, name in known.items() if f".{module.name}." in f".{name}."]
        if len(found) != 1:
            said = ", ".join(["default", *sorted(known.values())])
            raise module.node.bad(f"no one stack of layers; there are {said}")
        return found

    def _slice(self, module: Module, part: Slice, mine: list[str]) -> None:
        if not mine:
            raise part.node.bad("the first model has no layers")
        stack = mine[0]
        begin, end = part.sources[0].layers or (0, 0)
        for source in part.sources:
            layers = self._contents.layers(str(source.model), stack)
            have = max(layers, default=-1) + 1
            if source.layers and source.layers[1] > have:
                said = f"{source.model} has {have} layers"
                raise source.model.node.bad(
                    f"layer_range {list(source.layers)}: {said}"
                )
        self._stack(module, part, stack, begin, end - begin)

    def _stack(
        self, module: Module, part: Slice, stack: str, begin: int, count: int
    ) -> None:
        """Some layers of one stack, into the next layers of the result."""
        reference, contents = self._reference(part), self._contents
        starts = [s.layers[0] if s.layers else 0 for s in part.sources]
        names = [str(s.model) for s in part.sources]
        start = starts[names.index(reference)] if reference in names else begin
        for i in range(count):
            t = i / (count - 1) if count > 1 else 1.0
            into = self.layers.get(stack, 0)
            rests = contents.layers(reference, stack).get(start + i, [])
            for name, at in zip(names, starts, strict=True):
                for rest in contents.layers(name, stack).get(at + i, ()):
                    if rest not in rests:
                        contents.lost(name, f"{stack}{at + i}{rest}", reference)
            for rest in rests:
                inputs = [
                    Input(source, f"{stack}{at + i}{rest}")
                    for source, at in zip(part.sources, starts, strict=True)
                ]
                base = f"{stack}{start + i}{rest}"
                self._step(module, part, f"{stack}{into}{rest}", inputs, base, t)
            self.layers[stack] = into + 1

    def _loose(self, module: Module, part: Slice, name: str) -> None:
        inputs = [Input(s, name) for s in part.sources]
        self._step(module, part, name, inputs, name, 0.0)

    def _step(
        self,
        module: Module,
        part: Slice,
        name: str,
        inputs: list[Input],
        base_name: str,
        t: float,
    ) -> None:
        """One tensor of the result, where it is not decided already."""
        if name in self.steps:
            return
        recipe, method = self._recipe, self._method
        apart = _fit.apart_of(recipe, method, part)
        models = [x for x in inputs if str(x.source.model) != apart]
        found = [self._contents.find(str(x.source.model), x.name) for x in models]
        base = None if apart is None else self._contents.find(apart, base_name)
        if base is not None and method.base == "first":
            found, base = [base, *found], None
        everyone = found if base is None else [base, *found]
        first = everyone[0].tensor
        for one in everyone[1:]:
            same = one.tensor.shape == first.shape
            if not same or one.tensor.is_float != first.is_float:
                raise MergeError(
                    f"{one.tensor.file}: tensor {one.name} is {one.tensor}, in "
                    f"{first.file} it is {first}{hint(one, everyone[0])}"
                )
        if not first.is_float:
            self.steps[name] = Step(
                name, first.dtype, first.shape, (everyone[0][:2],), None, None
            )
            return
        out = recipe.out_dtype or recipe.dtype or first.dtype
        if not (recipe.out_dtype or recipe.dtype) and not self.note:
            self.note = _widths(name, [one.tensor.dtype for one in everyone])
        given = _fit.keywords(recipe, method, module, part, name, models, t)
        self.steps[name] = Step(
            name,
            out,
            first.shape,
            tuple(one[:2] for one in found),
            None if base is None else base[:2],
            given,
        )

    def check_covered(self) -> None:
        """A tensor that is nowhere in the result would be lost without a word."""
        first = self._recipe.modules[0]
        reference = self._reference(first.slices[0])
        for model, name in self._contents:
            here = _layers.place(name)
            inside = name in self.steps if here is None else here.stack in self.layers
            if inside:
                continue
            if model == reference:
                said = "default" if here is None else here.name
                raise first.node.bad(
                    f"tensor {name} is in no module; that of {said} is missing"
                )
            self._contents.lost(model, name, reference)


def _widths(name: str, dtypes: list[np.dtype]) -> str:
    if len(set(dtypes)) < 2:
        return ""
    came = " and ".join(dict.fromkeys(dtype.name for dtype in dtypes))
    return (
        f"dtype: {name} is {came}, and the recipe has no dtype: written as the base "
        "or first model has it; mergekit may take the widest"
    )
