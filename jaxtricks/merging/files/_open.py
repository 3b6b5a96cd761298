"""Which format a path holds, and where a model of a recipe lies on this machine."""

import os
from pathlib import Path

from ._tensors import Checkpoint, MergeError

_SAFETENSORS = (".safetensors", ".safetensors.index.json")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_ITEMS = ("state", "default", "params", "model")  # of an orbax manager's step


def open_checkpoint(path: Path) -> Checkpoint:
    """A reader of safetensors, flax msgpack or orbax; MergeError for anything else."""
    try:
        return _open(path)
    except OSError as error:
        raise MergeError(f"{error.filename or path}: {error.strerror}") from error


def _open(path: Path) -> Checkpoint:
    from ._msgpack import open_msgpack
    from ._safetensors import open_safetensors

    if not path.exists():
        raise MergeError(f"{path}: no such file or folder")
    if not path.is_dir():
        if path.name.endswith(_SAFETENSORS):
            return open_safetensors(path)
        if path.name.endswith(_PICKLES):
            raise _pickle(path)
        return open_msgpack(path)
    names = sorted(x.name for x in path.iterdir())
    if any(x.endswith(_SAFETENSORS) for x in names):
        return open_safetensors(path)
    if (folder := _orbax(path)) is not None:
        from ._orbax import OrbaxCheckpoint

        return OrbaxCheckpoint(folder)
    if any(x.endswith(".msgpack") for x in names):
        return open_msgpack(path)
    if pickles := [x for x in names if x.endswith(_PICKLES)]:
        raise _pickle(path / pickles[0])
    raise MergeError(
        f"{path}: holds no safetensors, no orbax checkpoint and no flax msgpack"
    )


def _pickle(path: Path) -> MergeError:
    return MergeError(
        f"{path}: a pickle, which can run any program when it is read, and is not; "
        "convert it to safetensors"
    )


def _orbax(path: Path) -> Path | None:
    """The folder with the arrays: this one, or the item of a step that has a tree."""
    folders = [path, *(x for x in sorted(path.iterdir()) if x.is_dir())]
    found = [x for x in folders if (x / "_METADATA").is_file()]
    if path in found or len(found) < 2:
        return found[0] if found else None
    for name in _ITEMS:
        if path / name in found:
            return path / name
    listed = ", ".join(x.name for x in found)
    raise MergeError(f"{path}: which one of {listed}? Name the folder")


def locate(name: str, revision: str | None, given: dict[str, Path], said: str) -> Path:
    """The folder or file of a model: given, a path, or in Hugging Face's cache."""
    full = f"{name}@{revision}" if revision else name
    if full in given:
        return given[full]
    try:
        path = Path(name).expanduser()
        if revision is None and path.exists():
            return path
        if (cached := _cached(name, revision)) is not None:
            return cached
    except (OSError, RuntimeError, ValueError):  # too long, ~nobody, a null byte
        pass
    raise MergeError(
        f"{said} is not on this machine: wanted a path, a model in the Hugging Face "
        f"cache, or its place by --model {full}=PATH"
    )


def _cached(name: str, revision: str | None) -> Path | None:
    """A snapshot that huggingface_hub has downloaded."""
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE", f"{home}/hub")).expanduser()
    if name.count("/") > 1 or ".." in name or ".." in (revision or ""):
        return None
    folder = hub / f"models--{name.replace('/', '--')}"
    commit = revision or "main"
    if (ref := folder / "refs" / commit).is_file():
        commit = ref.read_text(encoding="utf-8").strip()
    snapshot = folder / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None
