"""Reading parts of files, and their SHA-256 in the same pass."""

import hashlib
import heapq
import os
import re
import stat
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ._tensors import MergeError, Tensor

_STEP = 1 << 22  # bytes read at once where only the checksum wants them
_TEXT = 1_000_000  # characters of a recipe or a template, at most
_NUMBERED = re.compile(r"(.+)-(\d{1,9})-of-(\d{1,9})")


def read_text(path: Path) -> str:
    """A short file in UTF-8, or MergeError."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_TEXT + 1)
    except OSError as error:
        raise MergeError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise MergeError(f"{path}:1: no UTF-8 text ({error.reason})") from error
    if len(text) > _TEXT:
        raise MergeError(f"{path}: more than {_TEXT} characters")
    return text


class RawFile:
    """A file read in parts by several threads, hashed as they come.

    SHA-256 wants the bytes in order. Parts that come early are remembered by place
    alone and, when it is their turn, read again from the cache of the system.
    """

    def __init__(self, path: Path):
        self.path = path
        try:  # a pipe would be waited for without O_NONBLOCK
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise MergeError(f"{path}: {error.strerror}") from error
        state = os.fstat(self._fd)
        if not stat.S_ISREG(state.st_mode):
            self.close()
            raise MergeError(f"{path}: is no regular file")
        self.size, self._state = state.st_size, _identity(state)
        self._sha, self._at = hashlib.sha256(), 0
        self._early: list[tuple[int, int]] = []  # a heap of parts not hashed yet
        self._lock = threading.Lock()

    def read(self, start: int, nbytes: int) -> np.ndarray:
        """Exactly so many bytes from there, or MergeError."""
        data = np.empty(nbytes, np.uint8)
        self.fill(data.data, start)
        return data

    def fill(self, view: memoryview, start: int) -> None:
        """The same into memory that is there."""
        self._fill(view, start)
        self._hash(start, view)

    def digest(self) -> str:
        """SHA-256 of the whole file, in hex; what was not read is read now."""
        with self._lock:
            while self._at < self.size:
                self._ahead(min(self._at + _STEP, self.size))
            if _identity(os.fstat(self._fd)) != self._state:
                raise MergeError(f"{self.path}: was written to while it was read")
            return self._sha.hexdigest()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _fill(self, view: memoryview, start: int) -> None:
        done = 0
        while done < len(view):
            try:
                got = os.preadv(self._fd, [view[done:]], start + done)
            except OSError as error:
                raise MergeError(f"{self.path}: {error.strerror}") from error
            if not got:
                said = f"ends at byte {start + done}, wanted {start + len(view)}"
                raise MergeError(f"{self.path}: {said}; it is truncated")
            done += got

    def _hash(self, start: int, view: memoryview) -> None:
        with self._lock:
            end = start + len(view)
            if start <= self._at < end:
                self._sha.update(view[self._at - start :])
                self._at = end
            elif start > self._at:
                heapq.heappush(self._early, (start, end))
            while self._early and self._early[0][0] <= self._at:
                self._ahead(heapq.heappop(self._early)[1])

    def _ahead(self, end: int) -> None:
        while self._at < end:
            data = np.empty(min(_STEP, end - self._at), np.uint8).data
            self._fill(data, self._at)
            self._sha.update(data)
            self._at += len(data)


def _identity(state: os.stat_result) -> tuple:
    return state.st_size, state.st_mtime_ns, state.st_ino


class RawCheckpoint:
    """Tensors that lie in files as plain bytes: safetensors and msgpack.

    `pieces`: (begin, bytes) of those that do not lie in one piece.
    """

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, Tensor],
        files: Sequence[RawFile],
        pieces: Mapping[str, list[tuple[int, int]]] | None = None,
    ):
        self.path, self.tensors = path, tensors
        self._files = {file.path: file for file in files}
        self._pieces = pieces or {}

    def read(self, name: str, begin: int = 0, end: int | None = None) -> np.ndarray:
        tensor = self.tensors[name]
        width = tensor.dtype.itemsize
        first = begin * width
        last = (tensor.size if end is None else end) * width
        data = np.empty(last - first, np.uint8)
        view, file, at = data.data, self._files[tensor.file], 0
        for start, nbytes in self._pieces.get(name, [(tensor.start, tensor.nbytes)]):
            low, high = max(first, at), min(last, at + nbytes)
            if low < high:
                try:
                    file.fill(view[low - first : high - first], start + low - at)
                except MergeError as error:
                    raise MergeError(f"{error} (tensor {name})") from error
            at += nbytes
        return data.view(tensor.dtype)

    def held(self, name: str) -> int:
        return 0

    def digests(self) -> dict[str, str]:
        return {path.name: self._files[path].digest() for path in sorted(self._files)}

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def are_shards(paths: Sequence[Path]) -> bool:
    """Whether they are NAME-00001-of-00003 and so on; MergeError where one lacks."""
    found = [_NUMBERED.fullmatch(path.stem) for path in paths]
    if not found or None in found:
        return False
    parts = [m.groups() for m in found if m is not None]
    name, _, count = parts[0]
    if any((n, c) != (name, count) for n, _, c in parts):
        return False
    there = {int(number) for _, number, _ in parts}
    for number in range(1, int(count) + 1):
        if number not in there:
            path = paths[0]
            lost = f"{name}-{number:0{len(count)}d}-of-{count}{path.suffix}"
            raise MergeError(f"{path.parent / lost}: no such file, and no index")
    return True
