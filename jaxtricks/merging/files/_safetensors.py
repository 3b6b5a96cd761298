"""Checkpoints of safetensors: one file, or shards with an index. Nothing is trusted.

A file is 8 bytes, the length of the header; the header, JSON from names to dtype, shape
and place; the data. An index, `*.safetensors.index.json`, says which file holds what.
"""

import json
import math
import re
import struct
from pathlib import Path
from typing import Any

from ._raw import RawCheckpoint, RawFile, are_shards
from ._tensors import DTYPES, NAMES, MergeError, Tensor, unfit

_LARGEST_HEADER = 100_000_000  # as the format's own library has it
_HALVES = re.compile(rb"\\u[dD][89a-fA-F]")


def open_safetensors(path: Path) -> RawCheckpoint:
    """A file, an index, or a folder with either; MergeError names what is wrong."""
    names, folder, shards = None, path.parent, [path]
    if path.is_dir():
        folder, shards = path, _inside(path)
    if len(shards) == 1:
        (path,) = shards
    if path.suffix == ".json":
        names = _index(path)
        shards = [folder / x for x in sorted(set(names.values()))]
    files, tensors = [], {}
    try:
        for shard in shards:
            file = RawFile(shard)
            files.append(file)
            for name, tensor in header(file).items():
                if name in tensors:
                    both = f"{tensors[name].file.name} and {shard.name}"
                    raise MergeError(f"{path}: tensor {name} is in {both}")
                tensors[name] = tensor
        for name, shard in (names or {}).items():
            if name not in tensors or tensors[name].file.name != shard:
                raise MergeError(f"{folder / shard}: tensor {name} is missing")
        for name in tensors if names is not None else ():
            if name not in names:
                raise MergeError(
                    f"{tensors[name].file}: tensor {name} is not in {path.name}"
                )
        if not tensors:
            raise MergeError(f"{path}: holds no tensors")
    except BaseException:
        for file in files:
            file.close()
        raise
    return RawCheckpoint(path, tensors, files)


def header(file: RawFile) -> dict[str, Tensor]:
    """The tensors of one file, every number of the header checked."""
    if file.size < 8:
        raise MergeError(f"{file.path}: {file.size} bytes are no safetensors file")
    (length,) = struct.unpack("<Q", bytes(file.read(0, 8)))
    if length > min(_LARGEST_HEADER, file.size - 8):
        raise MergeError(
            f"{file.path}: its header wants {length} bytes of {file.size - 8}; "
            "truncated, or no safetensors file"
        )
    said = parse_json(bytes(file.read(8, length)), file.path)
    said.pop("__metadata__", None)
    tensors, spans = {}, []
    for name, facts in said.items():
        tensor, span = _tensor(file, name, facts, 8 + length)
        tensors[name] = tensor
        spans.append((*span, name))
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            raise MergeError(
                f"{file.path}: tensor {name} begins at {begin}, wanted {at}"
            )
        at = end
    if at != file.size - 8 - length:
        came = file.size - 8 - length
        raise MergeError(f"{file.path}: {came} bytes of data, wanted {at}")
    return tensors


def _tensor(file: RawFile, name: str, facts: Any, data: int):
    def bad(what):
        return MergeError(f"{file.path}: tensor {name}: {what}")

    if not isinstance(facts, dict) or set(facts) != {"dtype", "shape", "data_offsets"}:
        raise bad("wanted dtype, shape and data_offsets")
    if not isinstance(facts["dtype"], str) or facts["dtype"] not in DTYPES:
        raise bad(f"dtype {facts['dtype']!r:.40} is not known")
    shape, offsets = facts["shape"], facts["data_offsets"]
    for what, numbers in (("shape", shape), ("data_offsets", offsets)):
        natural = isinstance(numbers, list) and all(
            type(n) is int and 0 <= n < 2**63 for n in numbers
        )
        if not natural:
            raise bad(f"{what} {numbers!r:.40} is no list of natural numbers")
    dtype = DTYPES[facts["dtype"]]
    wanted = math.prod(shape) * dtype.itemsize
    if why := unfit(shape, dtype):
        raise bad(why)
    if len(offsets) != 2 or offsets[1] - offsets[0] != wanted:
        said = f"the {wanted} bytes of {shape!r:.60}"
        raise bad(f"data_offsets {offsets!r:.60} do not hold {said}")
    if data + offsets[1] > file.size:
        end = data + offsets[1]
        raise bad(f"ends at byte {end} of {file.size}; the file is truncated")
    tensor = Tensor(dtype, tuple(shape), file.path, data + offsets[0])
    return tensor, tuple(offsets)


def encode_header(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """The length and the header of a file that holds these one after the other."""
    if "__metadata__" in tensors:
        file = tensors["__metadata__"].file
        raise MergeError(f"{file}: tensor __metadata__: the format has this name")
    said: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for name, tensor in tensors.items():
        end = at + tensor.nbytes
        said[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the data are aligned
    return struct.pack("<Q", len(text)) + text


def _inside(folder: Path) -> list[Path]:
    """The index, the only file, or the shards that want no index, of a folder."""
    for usual in ("model.safetensors.index.json", "model.safetensors"):
        found = sorted(folder.glob(f"*{usual.removeprefix('model')}"))
        if folder / usual in found:
            return [folder / usual]
        if (usual.endswith("s") and are_shards(found)) or len(found) == 1:
            return found
        if found:
            listed = ", ".join(x.name for x in found[:4])
            raise MergeError(f"{folder}: which one of {listed}? Name the file")
    raise MergeError(f"{folder}: holds no safetensors")


def _index(path: Path) -> dict[str, str]:
    """Names to files beside the index, and to none elsewhere."""
    file = RawFile(path)
    try:
        said = parse_json(bytes(file.read(0, file.size)), path)
    finally:
        file.close()
    names = said.get("weight_map")
    if not isinstance(names, dict) or not names:
        raise MergeError(f"{path}: wanted a weight_map from tensors to files")
    for name, file in names.items():
        plain = isinstance(file, str) and file == Path(file).name and "\\" not in file
        if not plain or "\0" in file or not file.endswith(".safetensors"):
            raise MergeError(
                f"{path}: tensor {name}: {file!r:.60} is no safetensors file beside it"
            )
    return names


def parse_json(data: bytes, path: Path) -> dict[str, Any]:
    """A JSON object in which no name stands twice, or MergeError."""

    def once(pairs):
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise MergeError(f"{path}: {twice!r:.60} stands twice")
        return found

    try:
        said = json.loads(data.decode(), object_pairs_hook=once)
        if _HALVES.search(data):  # of characters: no file can be written with them
            json.dumps(said, ensure_ascii=False).encode()
    except MergeError:
        raise
    except (ValueError, RecursionError) as error:
        raise MergeError(
            f"{path}: no JSON where it has to be ({error!s:.80})"
        ) from error
    if not isinstance(said, dict):
        raise MergeError(f"{path}: wanted a JSON object, came {said!r:.40}")
    return said
