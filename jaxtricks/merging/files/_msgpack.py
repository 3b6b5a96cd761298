"""Flax's msgpack files (`flax.serialization.to_bytes`), indexed without loading them.

The format is walked once; of an array only its place is kept. Extension 1 is an array:
shape, dtype and bytes, packed again. Arrays past 1 GiB come as a map of flat chunks.
"""

import struct
from pathlib import Path
from typing import Any

from ._raw import RawCheckpoint, RawFile, are_shards
from ._tensors import DTYPES, MergeError, Tensor, unfit

_DTYPES = {dtype.name: dtype for dtype in DTYPES.values()}
_CHUNKED = "__msgpack_chunked_array__"
_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip


def open_msgpack(path: Path) -> RawCheckpoint:
    """A file, or a folder of one or of shards; names are paths joined by dots.

    MergeError names the byte that is wrong.
    """
    paths = sorted(path.glob("*.msgpack")) if path.is_dir() else [path]
    if path.is_dir() and not are_shards(paths) and len(paths) > 1:
        listed = ", ".join(x.name for x in paths[:4])
        raise MergeError(f"{path}: which one of {listed}? Name the file")
    tensors: dict[str, Tensor] = {}
    pieces: dict[str, list[tuple[int, int]]] = {}
    files = []
    try:
        for one in paths:
            files.append(file := RawFile(one))
            walk = _Walk(file)
            tree = walk.value(0)
            if walk.at != file.size:
                raise walk.bad(f"{file.size - walk.at} bytes too many")
            if not isinstance(tree, dict):
                raise MergeError(f"{one}: holds no tree of arrays")
            _flatten(one, "", tree, tensors, pieces)
        if not tensors:
            raise MergeError(f"{path}: holds no arrays")
    except BaseException:
        for file in files:
            file.close()
        raise
    return RawCheckpoint(path, tensors, files, pieces)


class _Walk:
    def __init__(self, file: RawFile):
        self._file, self.at = file, 0

    def bad(self, what: str) -> MergeError:
        return MergeError(f"{self._file.path}: byte {self.at}: {what}; no flax msgpack")

    def take(self, n: int) -> bytes:
        if self.at + n > self._file.size:
            raise self.bad("the file is truncated")
        data = bytes(self._file.read(self.at, n))
        self.at += n
        return data

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def value(self, depth: int) -> Any:
        """What is kept: maps, text, numbers, and arrays as Tensors."""
        if depth > 100:
            raise self.bad("nested too deep")
        code = self.take(1)[0]
        if code < 0x80:
            return code
        if code >= 0xE0:
            return code - 256
        if code in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[code]
        if code in _NUMBERS:
            return self.number(_NUMBERS[code])
        if code < 0x90 or code in (0xDE, 0xDF):
            return self._map(self._length(code, 0x0F, 0xDE), depth)
        if code < 0xA0 or code in (0xDC, 0xDD):
            length = self._length(code, 0x0F, 0xDC)
            if length > self._file.size:
                raise self.bad("an array longer than the file")
            return [self.value(depth + 1) for _ in range(length)]
        if code < 0xC0 or code in (0xD9, 0xDA, 0xDB):
            return self._text(self._sized(code, 0x1F, 0xD9))
        if code in (0xC4, 0xC5, 0xC6):
            return self._skip(self._sized(code, 0, 0xC4))
        if code in (0xC7, 0xC8, 0xC9):
            return self._extension(self._sized(code, 0, 0xC7))
        if 0xD4 <= code <= 0xD8:
            return self._extension(1 << (code - 0xD4))
        raise self.bad(f"code {code:#x}")

    def _length(self, code: int, mask: int, first: int) -> int:
        """Of maps and arrays: in the code, or in 2 or 4 bytes."""
        return code & mask if code < first else self.number((">H", ">I")[code - first])

    def _sized(self, code: int, mask: int, first: int) -> int:
        """Of text, bytes and extensions: in the code, or in 1, 2 or 4 bytes."""
        if code < first:
            return code & mask
        return self.number((">B", ">H", ">I")[code - first])

    def _text(self, length: int) -> str:
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise self.bad("text that is no UTF-8") from None

    def _skip(self, length: int) -> tuple[int, int]:
        start = self.at
        if start + length > self._file.size:
            raise self.bad("the file is truncated")
        self.at += length
        return start, length

    def _map(self, length: int, depth: int) -> dict:
        found: dict = {}
        for _ in range(length):
            key = self.value(depth + 1)
            if not isinstance(key, str | int) or str(key) in found:
                raise self.bad(f"the name {key!r:.40} is none, or stands twice")
            found[str(key)] = self.value(depth + 1)
        return found

    def _extension(self, length: int) -> Any:
        kind, start = self.number(">b"), self.at
        if start + length > self._file.size:
            raise self.bad("the file is truncated")
        if kind not in (1, 3):  # 2 is a complex number of Python
            raise self.bad(f"extension {kind}")
        said = self.value(98)
        if self.at != start + length or not isinstance(said, list) or len(said) != 3:
            raise self.bad("an array without shape, dtype and bytes")
        shape, name, place = said
        natural = isinstance(shape, list) and all(
            isinstance(n, int) and 0 <= n < 2**63 for n in shape
        )
        if not natural or not isinstance(place, tuple):
            raise self.bad("an array without shape, dtype and bytes")
        dtype = _DTYPES.get(name if isinstance(name, str) else "")
        if dtype is None:
            raise self.bad(f"dtype {name!r:.40} is not known")
        tensor = Tensor(dtype, tuple(shape), self._file.path, place[0])
        if unfit(shape, dtype) or tensor.nbytes != place[1]:
            raise self.bad(f"{place[1]} bytes for {tensor}")
        return tensor


def _flatten(
    path: Path,
    prefix: str,
    tree: Any,
    found: dict[str, Tensor],
    pieces: dict[str, list[tuple[int, int]]],
) -> None:
    if isinstance(tree, dict) and _CHUNKED not in tree:
        for name, value in tree.items():
            inner = f"{prefix}.{name}" if prefix else name
            _flatten(path, inner, value, found, pieces)
        return
    if tree is None:
        return
    if prefix in found:
        raise MergeError(f"{path}: tensor {prefix} stands twice")
    if isinstance(tree, Tensor):
        found[prefix] = tree
    elif isinstance(tree, dict):
        found[prefix], pieces[prefix] = _joined(path, prefix, tree)
    else:
        raise MergeError(f"{path}: {prefix}: {tree!r:.40} is no array")


def _joined(path: Path, name: str, said: dict) -> tuple[Tensor, list[tuple[int, int]]]:
    """One array of flat chunks, and where they lie."""
    shape, chunks = (_items(said.get(key)) for key in ("shape", "chunks"))
    natural = all(type(n) is int and 0 <= n < 2**63 for n in shape)
    alike = all(isinstance(x, Tensor) and x.dtype == chunks[0].dtype for x in chunks)
    if not (natural and chunks and alike):
        raise MergeError(f"{path}: {name}: no array in chunks, as flax writes them")
    tensor = Tensor(chunks[0].dtype, tuple(shape), path, chunks[0].start)
    if unfit(shape, tensor.dtype) or tensor.size != sum(x.size for x in chunks):
        raise MergeError(f"{path}: {name}: its chunks do not make up {tensor}")
    return tensor, [(x.start, x.nbytes) for x in chunks]


def _items(said: Any) -> list:
    """The list that flax keeps as a dict of "0", "1", ...; empty where it is none."""
    if not isinstance(said, dict) or set(said) != set(map(str, range(len(said)))):
        return []
    return [said[str(i)] for i in range(len(said))]
