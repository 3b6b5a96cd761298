"""The merge of files: recipe, plan, run, and what is written about it."""

import os
import platform
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ml_dtypes
import numpy as np

from ... import __version__
from . import _beside, _recipe, _yaml
from ._methods import leaf_of
from ._open import locate, open_checkpoint
from ._plan import Plan, plan
from ._progress import Progress, bytes_said, on_terminal
from ._run import budget, needs, run
from ._tensors import Checkpoint, MergeError
from ._write import ABOUT, Shards, atomic, check_apart, check_space, write_json

SHARD = 5_000_000_000
Config = str | os.PathLike[str] | Mapping[str, Any]


class Prepared(NamedTuple):
    """Everything that is known before a merge writes."""

    recipe: _recipe.Recipe
    folders: dict[str, Path]
    checkpoints: dict[str, Checkpoint]
    plan: Plan


def merge(
    config: Config,
    out: str | os.PathLike[str],
    *,
    models: Mapping[str, str | os.PathLike[str]] | None = None,
    tied: Mapping[str, str] | None = None,
    format: Literal["safetensors", "orbax"] = "safetensors",
    shard_bytes: int = SHARD,
    workers: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Path:
    """Merges checkpoints on the disk by mergekit's recipe, never holding one whole.

    Args:
      config: path of the YAML, or the same as a dict.
      out: the folder to make; it appears whole or not at all.
      models: where the models lie that the recipe names, if not at that path nor in the
        Hugging Face cache. Nothing is downloaded.
      tied: name -> name of the tensor that stands in where a model lacks the first.
      format: "safetensors", in shards with an index, or "orbax", in the item `state`.
      shard_bytes: largest size of a shard.
      workers: tensors in flight; None is one a core, 4 at most.
      seed: of random methods; each tensor's numbers depend on it and its name alone.
      overwrite: replace a merge that is at `out`; what is none stays.
      progress: draw a line on stderr; None is where that is a terminal.
    Returns:
      The folder: weights, merge.json (config, method, versions, SHA-256 of the inputs),
      and config.json and tokenizer of the base or first model.
    Cost: one pass over the inputs; memory for the largest tensor, not for the models.
    Raises: MergeError, one line that names file, line or tensor.
    """
    out = expanded("OUT", out)
    check_options(format, shard_bytes, workers)
    with ExitStack() as stack:
        ready = prepare(config, stack, models=models, tied=tied)
        write(
            ready,
            out,
            format=format,
            shard_bytes=shard_bytes,
            workers=workers,
            seed=seed,
            overwrite=overwrite,
            progress=progress,
            about={"tied": dict(tied)} if tied else None,
        )
    return out


def check_options(format: str, shard_bytes: int, workers: int | None) -> None:
    if format not in ("safetensors", "orbax"):
        raise MergeError(
            f"format: wanted 'safetensors' or 'orbax', came {format!r:.40}"
        )
    for name, number in (("shard_bytes", shard_bytes), ("workers", workers)):
        if number is not None and number < 1:
            raise MergeError(f"{name}: wanted >= 1, came {number}")


def write(
    ready: Prepared,
    out: Path,
    *,
    format: str,
    shard_bytes: int,
    workers: int | None,
    seed: int,
    overwrite: bool,
    progress: bool | None,
    about: Mapping[str, Any] | None = None,
) -> None:
    """What was prepared into a new folder; `about` goes into merge.json, too."""
    check_apart(out, ready.folders)
    steps, found = ready.plan.steps, ready.checkpoints
    total = sum(s.nbytes for s in steps)
    with ExitStack() as stack:
        folder = stack.enter_context(atomic(out, overwrite=overwrite))
        check_space(out, total)
        if format == "orbax":
            from ._orbax_write import OrbaxArrays

            writer = OrbaxArrays(folder / "state", steps, next(iter(found.values())))
        else:
            writer = Shards(folder, steps, shard_bytes, {"format": "pt"})
        stack.callback(writer.close)
        drawn = Progress(total, on_terminal(progress))
        stack.callback(drawn.end)
        workers = workers or _cores()
        run(ready.plan, found, writer, drawn, workers=workers, seed=seed)
        _beside.copy(ready.recipe, ready.folders, folder, ready.plan.layers)
        write_json(folder / ABOUT, _about(ready, seed, format) | dict(about or {}))


def expanded(argument: str, path: str | os.PathLike[str]) -> Path:
    """The path with ~ as a shell has it."""
    try:
        if "\0" not in str(found := Path(path).expanduser()):
            return found
    except RuntimeError:  # ~ of nobody
        pass
    raise MergeError(f"{argument}: {str(path)!r:.60} is no path")


def prepare(
    config: Config,
    stack: ExitStack,
    *,
    models: Mapping[str, str | os.PathLike[str]] | None = None,
    tied: Mapping[str, str] | None = None,
) -> Prepared:
    """All that can be wrong is found here, before anything is written."""
    recipe = _read(config)
    leaf_of(recipe.method.value, recipe.method)
    given = {n: expanded(f"model {n}", path) for n, path in (models or {}).items()}
    folders = {
        name: locate(m.path, m.revision, given, m.node.bad(name).args[0])
        for name, m in recipe.models().items()
    }
    for name in given:
        if name not in folders:
            raise MergeError(f"model {name}: the recipe names {', '.join(folders)}")
    _beside.check_models(recipe, folders)
    if recipe.chat_template is not None:
        node = recipe.chat_template
        _beside.chat_template(node.value, node, folders)
    checkpoints = {}
    for name, folder in folders.items():
        checkpoints[name] = open_checkpoint(folder)
        stack.callback(checkpoints[name].close)
    return Prepared(recipe, folders, checkpoints, plan(recipe, checkpoints, tied=tied))


def _read(config: Config) -> _recipe.Recipe:
    if isinstance(config, Mapping):
        import json

        try:
            text = json.dumps(config, indent=1, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise MergeError(f"config: wanted plain values ({error})") from None
        return _recipe.check(_yaml.parse(text, "config"))
    return _recipe.read(expanded("config", config))


def _about(ready: Prepared, seed: int, format: str) -> dict:
    """merge.json: no time and no folder, so that the same inputs give its bytes."""
    versions = {
        "jaxtricks": __version__,
        "ml_dtypes": ml_dtypes.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    about = {
        "method": ready.plan.name,
        "config": ready.recipe.node.plain(),
        "format": format,
        "tensors": len(ready.plan.steps),
        "inputs": {n: c.digests() for n, c in ready.checkpoints.items()},
        "versions": versions,
    }
    return about | ({"seed": seed} if ready.plan.method.random else {})


def _cores() -> int:
    return min(4, os.cpu_count() or 1)


def say(config: Config, *, explain: bool, dry_run: bool, **options: Any) -> None:
    """What `--explain` and `--dry-run` print."""
    from ._explain import explanation
    from ._table import report

    workers = options.pop("workers", None)
    check_options("safetensors", SHARD, workers)
    with ExitStack() as stack:
        ready = prepare(config, stack, **options)
        if explain:
            print("\n".join(explanation(ready.recipe, ready.plan)))
        if dry_run:
            each = needs(ready.plan, ready.checkpoints)
            print("\n".join(report(ready.plan, each)))
            total = sum(s.nbytes for s in ready.plan.steps)
            need = bytes_said(budget(each, workers or _cores()))
            print(f"{bytes_said(total)} to write; about {need} of memory at once")
    sys.stdout.flush()
