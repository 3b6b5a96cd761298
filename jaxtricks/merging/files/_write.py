"""A folder that appears whole or not at all: written beside its place, then renamed."""

import contextlib
import errno
import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ._plan import Step
from ._progress import bytes_said
from ._safetensors import encode_header
from ._tensors import MergeError, Tensor

ABOUT = "merge.json"  # what a merge has in it, and by which it is known
FULL = tuple(map(os.strerror, (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)))


@contextlib.contextmanager
def atomic(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A new folder that becomes `out` when all went well, and vanishes otherwise.

    What a killed merge left there is removed first; while one writes, a second is
    refused.
    """
    out = Path(os.path.abspath(out))
    half, old = out.parent / f".{out.name}.partial", out.parent / f".{out.name}.old"
    with _naming(out), contextlib.ExitStack() as stack:
        _check_place(out, overwrite)
        if half.is_symlink():
            raise MergeError(f"{half}: wanted a folder of a merge, came a link")
        half.mkdir(exist_ok=True)
        stack.callback(os.close, lock := os.open(half, os.O_RDONLY))
        _lock(lock, half)
        try:
            if old.exists() and not out.exists():  # killed between the two renames
                old.rename(out)
            _check_place(out, overwrite)
            for left in half.iterdir():
                _remove(left)
            yield half
            _sync(half)
            if overwrite and out.exists():
                _remove(old)
                out.rename(old)
            half.rename(out)  # which an empty folder does not hinder, another does
            with contextlib.suppress(OSError):  # it is there, whole, in any case
                _flush(out.parent)
            _remove(old)
        except BaseException:
            shutil.rmtree(half, ignore_errors=True)
            if old.exists() and not out.exists():
                old.rename(out)
            raise


def _check_place(out: Path, overwrite: bool) -> None:
    if not out.parent.is_dir():
        raise MergeError(f"{out.parent}: no such folder")
    if not out.exists() and not out.is_symlink():
        return
    if out.is_dir() and not out.is_symlink() and not any(out.iterdir()):
        return
    if not overwrite:
        raise MergeError(f"{out}: exists already; --overwrite replaces a merge")
    if not (out / ABOUT).is_file():
        said = f"no merge, as no {ABOUT} is in it: it is not replaced"
        raise MergeError(f"{out}: exists and is {said}")


def check_apart(out: Path, inputs: Mapping[str, Path]) -> None:
    """MergeError where the result and an input are, or hold, one another."""
    place = Path(os.path.realpath(out))
    for name, path in inputs.items():
        there = Path(os.path.realpath(path))
        if there in (place, *place.parents) or place in there.parents:
            raise MergeError(
                f"{out}: wanted a place apart from the inputs; the model {name} is "
                f"at {path}"
            )


class Shards:
    """Safetensors files, headers first; the data may come in any order.

    A file is open while it is written to, and closed when it is full.
    """

    def __init__(self, folder: Path, steps: Sequence[Step], limit: int, about: dict):
        groups = _groups(steps, limit)
        count = len(groups)
        self._lock = threading.Lock()
        self._fds: dict[Path, int] = {}
        self._left: dict[Path, int] = {}
        self._places: dict[str, tuple[Path, int]] = {}
        for i, group in enumerate(groups):
            name = f"model-{i + 1:05d}-of-{count:05d}" if count > 1 else "model"
            path = folder / f"{name}.safetensors"
            tensors = {s.name: Tensor(s.out, s.shape, path, 0) for s in group}
            head = encode_header(tensors, about)
            path.write_bytes(head)
            at = len(head)
            for step in group:
                self._places[step.name] = path, at
                at += step.nbytes
            self._left[path] = at - len(head)
        if count > 1:
            total = sum(s.nbytes for s in steps)
            places = {name: path.name for name, (path, _) in self._places.items()}
            index = {"metadata": {"total_size": total}, "weight_map": places}
            write_json(folder / "model.safetensors.index.json", index)

    def held(self, step: Step) -> int:
        return 0

    def put(self, step: Step, begin: int, part: np.ndarray) -> None:
        """A part of a tensor, from the entry `begin` on."""
        path, start = self._places[step.name]
        data = np.ascontiguousarray(part).view(np.uint8).data
        try:
            with self._lock:
                if path not in self._fds:
                    self._fds[path] = os.open(path, os.O_WRONLY)
                fd = self._fds[path]
            _write(fd, data, start + begin * step.out.itemsize)
            with self._lock:
                self._left[path] -= len(data)
                if not self._left[path]:
                    os.close(self._fds.pop(path))
        except OSError as error:
            raise MergeError(f"{path}: tensor {step.name}: {_refused(error)}") from None

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])


def write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def check_space(out: Path, wanted: int) -> None:
    free = shutil.disk_usage(out.parent if out.parent.is_dir() else ".").free
    if free < wanted:
        said = f"wanted {bytes_said(wanted)}, free are {bytes_said(free)}"
        raise MergeError(f"{out}: no space: {said}")


def _groups(steps: Sequence[Step], limit: int) -> list[list[Step]]:
    groups: list[list[Step]] = [[]]
    room = limit
    for step in steps:
        if groups[-1] and step.nbytes > room:
            groups.append([])
            room = limit
        groups[-1].append(step)
        room -= step.nbytes
    return groups


def _write(fd: int, data: memoryview, start: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], start + done)


@contextlib.contextmanager
def _naming(out: Path) -> Iterator[None]:
    """What the disk refuses becomes one line."""
    try:
        yield
    except OSError as error:
        raise MergeError(f"{error.filename or out}: {_refused(error)}") from error


def _refused(error: OSError) -> str:
    said = error.strerror or str(error)
    return f"no space ({said}); nothing is left of it" if said in FULL else said


def _lock(fd: int, half: Path) -> None:
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows: a second merge is not noticed
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise MergeError(f"{half}: another merge writes there") from None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.exists() or path.is_symlink():
        path.unlink()


def _sync(path: Path) -> None:
    """The files first, then the folders that name them."""
    for inner in path.iterdir():
        if inner.is_dir():
            _sync(inner)
        else:
            _flush(inner)
    _flush(path)


def _flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
