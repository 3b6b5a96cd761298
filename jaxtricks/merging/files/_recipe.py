"""Recipes: mergekit's YAML, every key checked, none ignored.

`models`, `slices` or `modules` say what is merged; `merge_method`, `base_model` and
`parameters` how, the nearest one that has a value: of the source, of its slice, of the
module, of the recipe.
"""

from pathlib import Path
from typing import Any, NamedTuple

from . import _settings, _yaml
from ._raw import read_text
from ._settings import Settings
from ._tensors import DTYPES, floating
from ._yaml import Node

_TOP = (
    "merge_method", "base_model", "models", "slices", "modules", "parameters", "dtype",
    "out_dtype", "tokenizer_source", "tokenizer", "chat_template",
)  # fmt: skip
_DTYPES = {t.name: t for t in DTYPES.values() if floating(t)}


class Model(NamedTuple):
    """A model as the recipe names it."""

    path: str
    revision: str | None
    node: Node

    def __str__(self) -> str:
        return f"{self.path}@{self.revision}" if self.revision else self.path


class Source(NamedTuple):
    """One model in a slice; `layers` is None for all."""

    model: Model
    layers: tuple[int, int] | None
    parameters: Settings


class Slice(NamedTuple):
    """Layers that follow each other, from one or more models."""

    sources: tuple[Source, ...]
    base: Model | None
    parameters: Settings
    node: Node


class Module(NamedTuple):
    """A part of the model with layers of its own; "" is all of it."""

    name: str
    slices: tuple[Slice, ...]
    parameters: Settings
    node: Node


class Recipe(NamedTuple):
    """A checked recipe."""

    method: Node
    base: Model | None
    modules: tuple[Module, ...]
    parameters: Settings
    dtype: Any
    out_dtype: Any
    tokenizer: Model | None  # whose path may be "union" or "base"
    chat_template: Node | None
    node: Node

    def models(self) -> dict[str, Model]:
        """Every model that is named, the base first, each once."""
        slices = [part for module in self.modules for part in module.slices]
        found = [self.base, *(part.base for part in slices)]
        found += [s.model for part in slices for s in part.sources]
        return {str(model): model for model in found if model is not None}


def read(path: Path) -> Recipe:
    """The recipe in a file."""
    return check(_yaml.parse(read_text(path), path))


def check(root: Node) -> Recipe:
    """The recipe that the document holds, or MergeError with key and line."""
    top = root.fields(*_TOP)
    if "merge_method" not in top:
        raise root.bad("wanted merge_method")
    top["merge_method"].text()
    given = [name for name in ("models", "slices", "modules") if name in top]
    if len(given) != 1:
        node = top[given[1]] if given else root
        raise node.bad("wanted exactly one of models, slices, modules")
    if given[0] == "modules":
        modules = top["modules"]
        if not isinstance(modules.value, dict) or not modules.value:
            raise modules.bad("wanted a map from modules to slices or models")
        parts = tuple(_module(name, node) for name, node in modules.value.items())
    else:
        parts = (Module("", _slices(given[0], top[given[0]]), {}, top[given[0]]),)
    if "tokenizer" in top and "tokenizer_source" in top:
        raise top["tokenizer"].bad("stands beside tokenizer_source: take one")
    chat = top.get("chat_template")
    if chat is not None:
        chat.text()
    return Recipe(
        top["merge_method"],
        _model(top["base_model"]) if "base_model" in top else None,
        parts,
        _parameters(top),
        _dtype(top.get("dtype")),
        _dtype(top.get("out_dtype")),
        _tokenizer(top),
        chat,
        root,
    )


def _module(name: str, node: Node) -> Module:
    fields = node.fields("slices", "models", "parameters")
    given = [x for x in ("slices", "models") if x in fields]
    if len(given) != 1:
        raise node.bad("wanted exactly one of slices, models")
    return Module(name, _slices(given[0], fields[given[0]]), _parameters(fields), node)


def _slices(kind: str, node: Node) -> tuple[Slice, ...]:
    if kind == "models":
        sources = []
        for item in node.items():
            fields = item.fields("model", "parameters")
            model = _model(item.wanted(fields, "model"))
            sources.append(Source(model, None, _parameters(fields)))
        return (Slice(tuple(sources), None, {}, node),)
    return tuple(_slice(item) for item in node.items())


def _slice(node: Node) -> Slice:
    fields = node.fields("sources", "base_model", "residual_weight", "parameters")
    if "residual_weight" in fields:
        raise fields["residual_weight"].bad("is read by no version and not supported")
    sources = []
    for item in node.wanted(fields, "sources").items():
        inner = item.fields("model", "layer_range", "parameters")
        model = _model(item.wanted(inner, "model"))
        layers = _range(item.wanted(inner, "layer_range"))
        sources.append(Source(model, layers, _parameters(inner)))
    lengths = [s.layers[1] - s.layers[0] for s in sources if s.layers]
    if len(set(lengths)) != 1:
        said = f"wanted as many layers of each source, came {lengths}"
        raise fields["sources"].bad(said)
    base = _model(fields["base_model"]) if "base_model" in fields else None
    return Slice(tuple(sources), base, _parameters(fields), node)


def _range(node: Node) -> tuple[int, int]:
    numbers = [x.value for x in node.items()]
    whole = len(numbers) == 2 and all(type(n) is int for n in numbers)
    if not whole or not 0 <= numbers[0] < numbers[1] < 100_000:
        raise node.bad(
            f"wanted [first, end) with first < end, came {node.plain()!r:.60}"
        )
    return numbers[0], numbers[1]


def _model(node: Node) -> Model:
    """`path`, `path@revision`, or the map of these."""
    if isinstance(node.value, dict):
        fields = node.fields("model", "lora", "override_architecture")
        for name in ("lora", "override_architecture"):
            if name in fields:
                raise fields[name].bad("is not supported")
        inner = node.wanted(fields, "model")
        if isinstance(inner.value, dict):
            parts = inner.fields("path", "revision")
            path = inner.wanted(parts, "path").text()
            revision = parts["revision"].text() if "revision" in parts else None
            return Model(path, revision, node)
        node = inner
    text = node.text()
    if not text.isprintable():
        raise node.bad(f"{text!r:.80} is no model")
    if "+" in text:
        raise node.bad(
            f"{text!r:.80} adds a LoRA, which is not supported: fold it first"
        )
    path, *rest = text.split("@")
    if len(rest) > 1 or not path:
        raise node.bad(f"{text!r:.80} is no model")
    return Model(path, rest[0] if rest else None, node)


def _dtype(node: Node | None) -> Any:
    if node is None:
        return None
    name = node.text().removeprefix("torch.")
    if name not in _DTYPES:
        raise node.bad(f"{name!r:.40} is none of {', '.join(sorted(_DTYPES))}")
    return _DTYPES[name]


def _tokenizer(top: dict[str, Node]) -> Model | None:
    if "tokenizer_source" in top:
        return _model(top["tokenizer_source"])
    if "tokenizer" not in top:
        return None
    fields = top["tokenizer"].fields("source", "tokens", "pad_to_multiple_of")
    for name in ("tokens", "pad_to_multiple_of"):
        if name in fields:
            raise fields[name].bad(
                "would change the vocabulary, which is not supported"
            )
    return _model(fields.get("source", top["tokenizer"]._replace(value="union")))


def _parameters(fields: dict[str, Node]) -> Settings:
    if "parameters" not in fields:
        return {}
    found = fields["parameters"]
    if not isinstance(found.value, dict):
        raise found.bad("wanted a map of parameters")
    for node in found.value.values():
        _settings.check(node)
    return {k: v for k, v in found.value.items() if v.value is not None}
