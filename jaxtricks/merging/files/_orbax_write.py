"""A checkpoint of orbax, written array by array as they are merged, by tensorstore.

It restores as the checkpoint that it is made like, if there is one: the same tree with
its empty places, texts, shardings and keys; else into a flat dict of numpy arrays. Each
array has a folder of its own, not a place in OCDBT, whose files are called at random:
the same arrays give the same bytes.
"""

import math
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ._orbax import OrbaxCheckpoint, broken, tensorstore
from ._plan import Step
from ._tensors import Checkpoint, MergeError
from ._write import FULL, write_json

_CHUNK = 1 << 28  # bytes that are packed and read at once
_BESIDE = ("_strings.json", "_sharding", "array_metadatas")


class OrbaxArrays:
    """Takes what `Shards` takes; an array is kept until it is whole, then written."""

    def __init__(self, folder: Path, steps: Sequence[Step], like: Checkpoint):
        self._folder, self._ts = folder, tensorstore(folder)
        self._like = like if isinstance(like, OrbaxCheckpoint) else None
        self._waiting: dict[str, np.ndarray] = {}
        self._lock = threading.Lock()
        folder.mkdir()
        write_json(folder / "_METADATA", self._metadata(steps))
        for step in steps:
            if not step.size:
                self._write(step, np.empty(step.shape, step.out))

    def held(self, step: Step) -> int:
        return 2 * step.nbytes

    def put(self, step: Step, begin: int, part: np.ndarray) -> None:
        """A part of a tensor, from the entry `begin` on; the last one comes last."""
        with self._lock:
            if step.name not in self._waiting:
                self._waiting[step.name] = np.empty(step.size, step.out)
            whole = self._waiting[step.name]
        whole[begin : begin + part.size] = part
        if begin + part.size == step.size:
            self._write(step, whole.reshape(step.shape))
            with self._lock:
                del self._waiting[step.name]

    def close(self) -> None:
        self._waiting.clear()

    def _write(self, step: Step, whole: np.ndarray) -> None:
        place = self._folder.resolve() / step.name
        if ".." in place.parts or self._folder.resolve() not in (place, *place.parents):
            raise MergeError(f"{self._folder}: tensor {step.name} is outside of it")
        spec = {
            "driver": "zarr",
            "kvstore": {"driver": "file", "path": f"{place}/", "file_io_sync": False},
            "metadata": {
                "shape": list(step.shape),
                "chunks": self._chunks(step),
                "compressor": {"id": "zstd", "level": 1},
            },
            "dtype": step.out.name,
            "store_data_equal_to_fill_value": True,
        }
        try:
            array = self._ts.open(spec, create=True).result()
            array.write(whole, can_reference_source_data_indefinitely=True).result()
        except Exception as error:
            if any(word in str(error) for word in FULL):
                said = "no space; nothing is left of it"
                raise MergeError(
                    f"{self._folder}: tensor {step.name}: {said}"
                ) from None
            raise broken(self._folder, step.name, error) from None

    def _chunks(self, step: Step) -> list[int]:
        """As they were, or whole rows."""
        like = None if self._like is None else self._like.tensors.get(step.name)
        if self._like is not None and like is not None and like.shape == step.shape:
            return self._like.chunks(step.name)
        chunks = [max(n, 1) for n in step.shape]
        for axis, n in enumerate(chunks):
            inner = math.prod(chunks[axis + 1 :]) * step.out.itemsize
            chunks[axis] = max(1, min(n, _CHUNK // inner))
        return chunks

    def _metadata(self, steps: Sequence[Step]) -> dict[str, Any]:
        like, tree = self._like, {}
        if like is not None and all(step.name in like.keys for step in steps):
            wanted = {like.keys[step.name] for step in steps}
            arrays = set(like.keys.values())
            kept = wanted if wanted != arrays else like.entries
            outer = {_outermost(like.entries[entry]) for entry in kept}
            tree = {
                entry: facts
                for entry, facts in like.entries.items()
                if entry in wanted
                or (entry not in arrays and _outermost(facts) in outer)
            }
            for name in _BESIDE:
                if (like.path / name).is_dir():
                    shutil.copytree(like.path / name, self._folder / name)
                elif (like.path / name).is_file():
                    shutil.copyfile(like.path / name, self._folder / name)
        else:
            for step in steps:
                tree[str((step.name,))] = {
                    "key_metadata": [{"key": step.name, "key_type": 2}],
                    "value_metadata": {
                        "value_type": "np.ndarray",
                        "skip_deserialize": False,
                    },
                }
        return {
            "tree_metadata": tree,
            "use_ocdbt": False,
            "use_zarr3": False,
            "store_array_data_equal_to_fill_value": True,
            "custom_metadata": None,
        }


def _outermost(facts: dict[str, Any]) -> str | int:
    return facts["key_metadata"][0]["key"]
