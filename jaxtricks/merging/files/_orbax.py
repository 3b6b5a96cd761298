"""Checkpoints of orbax, read array by array; nothing else is loaded.

The tree stands in `_METADATA`, the arrays in tensorstore's OCDBT (or a folder each).
It wants tensorstore alone, which orbax brings along; neither orbax nor jax.
"""

import hashlib
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ._safetensors import parse_json
from ._tensors import NAMES, MergeError, Tensor

# What stands in the tree without an array: no leaf, an empty container, a text.
_BARE = ("None", "Dict", "List", "Tuple", "NamedTuple", "str", "string")
_STEP = re.compile(r"(?:[A-Za-z]\w*?[_-])?(\d{1,18})", re.ASCII)


class OrbaxCheckpoint:
    """The arrays of one checkpoint; names are paths joined by dots.

    `entries` is the tree as `_METADATA` has it, `keys` which entry is which array.
    """

    def __init__(self, path: Path):
        self.path = path
        self._last = threading.local()  # (name, array) that a thread is reading
        self.entries, said = _metadata(path / "_METADATA")
        self.keys: dict[str, str] = {}
        for entry, facts in self.entries.items():
            kind = facts["value_metadata"]
            if kind.get("skip_deserialize") or kind.get("value_type") in _BARE:
                continue
            name = ".".join(str(key["key"]) for key in facts["key_metadata"])
            if name in self.keys:
                raise MergeError(f"{path}: two arrays are called {name}")
            if ".." in name.split("/") or name.startswith("/") or "\0" in name:
                raise MergeError(f"{path}: tensor {name} is outside of it")
            self.keys[name] = entry
        if not self.keys:
            raise MergeError(f"{path}: holds no arrays")
        driver = "zarr3" if said.get("use_zarr3") else "zarr"
        self._open = _opened(path, list(self.keys), driver)
        tensors: dict[str, Tensor] = {}
        for name, array in self._open.items():
            dtype = np.dtype(array.dtype.numpy_dtype)
            if dtype not in NAMES:
                raise MergeError(f"{path}: tensor {name}: dtype {dtype} is not known")
            tensors[name] = Tensor(dtype, tuple(array.shape), path, 0)
        self.tensors: Mapping[str, Tensor] = tensors

    def read(self, name: str, begin: int = 0, end: int | None = None) -> np.ndarray:
        # An array is cut along its own chunks: it is kept until its end is read.
        if getattr(self._last, "name", None) != name:
            try:
                found = np.ascontiguousarray(self._open[name].read().result())
            except Exception as error:  # whatever tensorstore finds broken
                raise broken(self.path, name, error) from None
            self._last.name, self._last.value = name, found.reshape(-1)
        value = self._last.value
        if end is None or end >= value.size:
            self._last.name = self._last.value = None
        return value[begin:end]

    def held(self, name: str) -> int:
        return 2 * self.tensors[name].nbytes  # and its chunk, packed and unpacked

    def chunks(self, name: str) -> list[int]:
        """How the array is cut, where it is."""
        return list(self._open[name].chunk_layout.write_chunk.shape or ())

    def digests(self) -> dict[str, str]:
        """Of every file of the checkpoint, read once more."""
        found = {}
        for path in sorted(x for x in self.path.rglob("*") if x.is_file()):
            try:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise MergeError(f"{path}: {error.strerror}") from error
            found[path.relative_to(self.path).as_posix()] = digest
        return found

    def close(self) -> None:
        self._open.clear()
        self._last = threading.local()


def _metadata(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entries of the tree, checked; and all that the file says."""
    try:
        said = parse_json(path.read_bytes(), path)
    except OSError as error:
        raise MergeError(f"{path}: {error.strerror}") from error
    tree = said.get("tree_metadata")
    if not isinstance(tree, dict) or not all(map(_is_entry, tree.values())):
        raise MergeError(f"{path}: no tree of an orbax checkpoint")
    return tree, said


def _is_entry(facts: Any) -> bool:
    if not isinstance(facts, dict) or not isinstance(facts.get("value_metadata"), dict):
        return False
    keys = facts.get("key_metadata")
    if not isinstance(keys, list) or not keys:
        return False
    return all(
        isinstance(key, dict) and isinstance(key.get("key"), str | int) for key in keys
    )


def _opened(path: Path, names: list[str], driver: str) -> dict[str, Any]:
    ts = tensorstore(path)
    base = {"driver": "file", "path": f"{path.resolve()}/"}
    pending = {}
    for name in names:
        if (path / "manifest.ocdbt").exists():
            store = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
        else:
            store = base | {"path": f"{path.resolve() / name}/"}
        spec = {"driver": driver, "kvstore": store}
        try:
            pending[name] = ts.open(spec, open=True, read=True)
        except Exception as error:
            raise broken(path, name, error) from None
    found = {}
    for name, one in pending.items():
        try:
            found[name] = one.result()
        except Exception as error:
            raise broken(path, name, error) from None
    return found


def tensorstore(path: Path) -> Any:
    try:
        import tensorstore
    except ModuleNotFoundError:
        raise MergeError(
            f"{path}: orbax checkpoints need tensorstore: "
            "pip install 'jaxtricks[merging]'"
        ) from None
    return tensorstore


def broken(path: Path, name: str, error: Exception) -> MergeError:
    said = " ".join(str(error).split())
    return MergeError(f"{path}: tensor {name} is missing or broken ({said:.160})")


def steps(folder: Path) -> dict[int, Path]:
    """The checkpoints of a run by step: `500`, `step_500`, `checkpoint-500`."""
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        name = _STEP.fullmatch(path.name)
        if name is None or not path.is_dir():
            continue
        if (step := int(name[1])) in found:
            raise MergeError(f"{path}: step {step} is {found[step].name}, too")
        found[step] = path
    return dict(sorted(found.items()))
