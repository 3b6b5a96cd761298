"""What lies beside the weights: config.json, tokenizer, chat template."""

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ._raw import read_text
from ._recipe import Recipe
from ._safetensors import parse_json
from ._tensors import MergeError
from ._write import write_json

_TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json",
    "vocab.txt", "merges.txt", "special_tokens_map.json", "added_tokens.json",
    "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja",
    "chat_template.json",
)  # fmt: skip
_OTHER = (
    "generation_config.json", "preprocessor_config.json", "processor_config.json",
    "video_preprocessor_config.json",
)  # fmt: skip
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def check_models(recipe: Recipe, folders: Mapping[str, Path]) -> None:
    """MergeError for what a merge would get wrong without a word."""
    for name, model in recipe.models().items():
        found = _json(folders[name], "config.json")
        if "quantization_config" in found:
            raise model.node.bad(f"{name} is quantized, which is not supported")
    if recipe.tokenizer is None:
        return
    node = recipe.tokenizer.node
    if recipe.tokenizer.path == "base" and recipe.base is None:
        raise node.bad("base: wanted a base_model")
    vocabularies = {name: _vocabulary(folders[name]) for name in folders}
    known = {name: v for name, v in vocabularies.items() if v}
    if len(set(known.values())) > 1:
        names = ", ".join(known)
        raise node.bad(f"the vocabularies of {names} differ: rows would have to move")
    donor(recipe, folders)


def donor(recipe: Recipe, folders: Mapping[str, Path]) -> Path:
    """Where the tokenizer comes from."""
    first = next(iter(folders.values()))
    if recipe.tokenizer is None or recipe.tokenizer.path in ("union", "base"):
        return first
    name = str(recipe.tokenizer)
    if name in folders:
        return folders[name]
    path = Path(name)
    if not path.is_dir():
        raise recipe.tokenizer.node.bad(
            f"{name!r:.60} is neither union, base, a model named, nor a folder"
        )
    return path


def copy(
    recipe: Recipe, folders: Mapping[str, Path], out: Path, layers: Mapping[str, int]
) -> None:
    """The files of the base, or of the first model, changed where the merge asks."""
    first = next(iter(folders.values()))
    source = donor(recipe, folders)
    for name in _TOKENIZER:
        _copy(source, out, name)
    for name in _OTHER:
        _copy(first, out, name)
    if config := _json(first, "config.json"):
        write_json(out / "config.json", _config(recipe, config, layers))
    if recipe.chat_template is not None:
        _chat(recipe, folders, out)


def _config(recipe: Recipe, config: dict, layers: Mapping[str, int]) -> dict:
    dtype = recipe.out_dtype or recipe.dtype
    if dtype is not None:
        name = "dtype" if "dtype" in config else "torch_dtype"
        config[name] = dtype.name
    sliced = any(
        s.layers for m in recipe.modules for part in m.slices for s in part.sources
    )
    if sliced and len(layers) == 1:
        (count,) = layers.values()
        for name in _LAYERS:
            if name in config:
                config[name] = count
    return config


def _chat(recipe: Recipe, folders: Mapping[str, Path], out: Path) -> None:
    node = recipe.chat_template
    assert node is not None
    said = chat_template(node.value, node, folders)
    if said is None:
        return
    config = _json(out, "tokenizer_config.json")
    config["chat_template"] = said
    write_json(out / "tokenizer_config.json", config)
    if (out / "chat_template.jinja").exists():
        (out / "chat_template.jinja").write_text(said, encoding="utf-8")


def chat_template(value: str, node: Any, folders: Mapping[str, Path]) -> str | None:
    """The text of a template; for "auto" the one that most models have."""
    if value != "auto":
        if "{" not in value or len(value) < 20:
            raise node.bad(f"{value!r:.40} is neither auto nor the text of a template")
        return value
    found = []
    for folder in folders.values():
        path = folder / "chat_template.jinja"
        text = _json(folder, "tokenizer_config.json").get("chat_template")
        if path.is_file():
            text = read_text(path)
        if isinstance(text, str) and text.strip():
            found.append(text.strip())
    return Counter(found).most_common(1)[0][0] if found else None


def _vocabulary(folder: Path) -> str | None:
    """Tokens and their ids as one string, None where there is no tokenizer.json."""
    said = _json(folder, "tokenizer.json")
    model = said.get("model")
    if not isinstance(model, dict):
        return None
    added = said.get("added_tokens") or []
    ids = sorted(
        (str(x.get("content")), x.get("id")) for x in added if isinstance(x, dict)
    )
    vocab = model.get("vocab")
    pairs = sorted(vocab.items()) if isinstance(vocab, dict) else vocab
    return json.dumps([pairs, ids])


def _json(folder: Path, name: str) -> dict:
    path = (folder if folder.is_dir() else folder.parent) / name
    if not path.is_file():
        return {}
    try:
        return parse_json(path.read_bytes(), path)
    except OSError as error:
        raise MergeError(f"{path}: {error.strerror}") from error


def _copy(source: Path, out: Path, name: str) -> None:
    path = (source if source.is_dir() else source.parent) / name
    if path.is_file():
        shutil.copyfile(path, out / name)
