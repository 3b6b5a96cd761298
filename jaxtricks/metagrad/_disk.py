"""Where `replay` keeps its states: the next few in memory, the others in a directory.

On the disk an entry is whole or not there: orbax writes it in the background under
another name first, each process its own parts of the arrays.
"""

import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from .._checksum import is_key, raw

REFUSED = {"ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "ENOTDIR"}
WORDS = ("no space left", "quota exceeded", "file too large")


class Disk:
    """Entries, named kind-number, in the directory of one run."""

    def __init__(self, folder: Path, facts: dict[str, Any]):
        try:
            import orbax.checkpoint as ocp
        except ImportError:
            raise ValueError(
                "directory: wants orbax-checkpoint, which is not installed"
            ) from None

        self._ocp, self._folder = ocp, folder.absolute()
        with _orbax_is_quiet():
            self._claim(facts)
            self._saver = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())
        self._names = self._found()

    def numbers(self, kind: str) -> list[int]:
        """Of the entries of a kind, ascending, alike on all processes."""
        names = (name.split("-") for name in self._names)
        return sorted(int(number) for of, number in names if of == kind)

    def save(self, kind: str, number: int, values: PyTree) -> None:
        """Returns when the values are copied; the one before is then whole."""
        name = f"{kind}-{number}"
        if name in self._names:
            return
        leaves = {str(i): raw(x) for i, x in enumerate(jax.tree.leaves(values))}
        with self._told(name):
            args = self._ocp.args.PyTreeSave(leaves)
            self._saver.save(self._folder / name, args=args, force=True)
        self._names.add(name)

    def load(self, kind: str, number: int, like: PyTree) -> PyTree:
        """What was saved, where `like` lies."""
        ocp, leaves = self._ocp, jax.tree.leaves(like)
        self.wait()
        item = {
            str(i): jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
            for i, x in enumerate(map(raw, leaves))
        }
        args = ocp.args.PyTreeRestore(
            item=item, restore_args=ocp.checkpoint_utils.construct_restore_args(item)
        )
        place = self._folder / f"{kind}-{number}"
        try:
            with _orbax_is_quiet():
                found = self._saver.restore(place, args=args)
        except Exception as error:
            raise ValueError(
                f"directory: {place} is damaged; delete it, and the same call goes on "
                f"from what else is there ({_first_line(error)})"
            ) from None
        back = []
        for i, leaf in enumerate(leaves):
            x = found[str(i)]
            if is_key(leaf):
                x = jax.random.wrap_key_data(x, impl=jax.random.key_impl(leaf))
            back.append(x)
        return jax.tree.unflatten(jax.tree.structure(like), back)

    def drop(self, kind: str, number: int) -> None:
        name = f"{kind}-{number}"
        if name not in self._names:
            return
        self.wait()
        self._names.discard(name)
        if jax.process_index() == 0:  # in two moves: a kill leaves no half entry
            gone = self._folder / f".{name}"
            shutil.rmtree(gone, ignore_errors=True)
            (self._folder / name).rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def wait(self) -> None:
        """Until all that was saved is whole."""
        with self._told("an entry"):
            self._saver.wait_until_finished()

    def close(self) -> None:
        """What failed was raised by `wait`; here it would hide that."""
        with _orbax_is_quiet(), suppress(Exception):
            self._saver.close()

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """What the disk does not take is one line, and the run can go on later."""
        try:
            with _orbax_is_quiet():
                yield
        except Exception as error:
            number = _errno(error)
            if number is None:
                raise
            raise OSError(
                number,
                f"directory: cannot write {name} to {self._folder}: "
                f"{os.strerror(number)}; what is there is whole, and the same call "
                "goes on from it",
            ) from None

    def _claim(self, facts: dict[str, Any]) -> None:
        """The directory, made or gone on with; ValueError if it is of another run."""
        folder, about = self._folder, self._folder / "run.json"
        facts, part = json.loads(json.dumps(facts)), folder / "run.part"
        there = set(folder.iterdir()) if folder.is_dir() else set()
        foreign = there - {part} and about not in there
        _barrier("replay: found")
        if foreign or (folder.exists() and not folder.is_dir()):
            raise ValueError(f"directory: {folder} holds something that is no replay")
        if jax.process_index() == 0 and about not in there:
            with self._told(about.name):
                folder.mkdir(parents=True, exist_ok=True)
                part.write_text(json.dumps(facts, indent=2) + "\n")
                part.rename(about)
        _barrier("replay: claimed")
        try:
            before = json.loads(about.read_text())
        except json.JSONDecodeError:
            raise ValueError(
                f"directory: {about} is damaged. Take another directory, or delete it"
            ) from None
        differ = [key for key in facts if before.get(key) != facts[key]]
        if differ:
            said = [
                f"{key} was {before.get(key)}, is {facts[key]}"
                if isinstance(facts[key], int | str)
                else f"{key} differs"
                for key in differ
            ]
            raise ValueError(
                f"directory: {folder} is of another run: {'; '.join(said)}. Take "
                "another one, or delete it"
            )
        if jax.process_index() == 0:  # what a kill left half written or half deleted
            for kind in ("state", "back"):
                for half in (*folder.glob(f"{kind}-*.*"), *folder.glob(f".{kind}-*")):
                    shutil.rmtree(half, ignore_errors=True)

    def _found(self) -> set[str]:
        """The entries, as process 0 sees them."""
        names = [p.name for p in self._folder.iterdir()]
        names = [n for n in names if re.fullmatch(r"(state|back)-\d+", n)]
        if jax.process_count() > 1:
            from jax.experimental.multihost_utils import broadcast_one_to_all as agree

            text = np.frombuffer(" ".join(names).encode(), np.uint8)
            size = int(agree(np.int32(len(text))))
            padded = np.zeros(size, np.uint8)
            padded[: min(size, len(text))] = text[:size]
            names = bytes(np.asarray(agree(padded), np.uint8)).decode().split()
        return set(names)


class Store:
    """States by segment: the highest, needed next, in memory; the others on disk."""

    def __init__(self, disk: Disk | None, room: int | None, like: PyTree):
        self._disk, self._room, self._like = disk, room, like
        self._here: dict[int, PyTree] = {}

    def places(self) -> set[int]:
        disk = () if self._disk is None else self._disk.numbers("state")
        return {*self._here, *disk}

    def put(self, place: int, state: PyTree) -> None:
        self._here[place] = _to_host(state)
        while self._disk is not None and len(self._here) > (self._room or 0):
            lowest = min(self._here)
            self._disk.save("state", lowest, self._here.pop(lowest))

    def get(self, place: int) -> PyTree:
        if place in self._here:
            return jax.tree.map(
                lambda x, like: jax.device_put(x, like.sharding),
                self._here[place],
                self._like,
            )
        assert self._disk is not None
        return self._disk.load("state", place, self._like)

    def keep(self, wanted: set[int]) -> None:
        """Drops all others."""
        for place in self.places() - wanted:
            self._here.pop(place, None)
            if self._disk is not None:
                self._disk.drop("state", place)


def _to_host(state: PyTree) -> PyTree:
    """In the host's memory, parts of a sharded array each at its own device's."""

    def leaf(x):
        device = next(iter(x.sharding.device_set))
        kinds = {memory.kind for memory in device.addressable_memories()}
        if device.platform == "cpu" or "pinned_host" not in kinds:
            return x
        return jax.device_put(x, x.sharding.with_memory_kind("pinned_host"))

    return jax.tree.map(leaf, state)


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import sync_global_devices

        sync_global_devices(name)


def _errno(error: BaseException | None) -> int | None:
    """Of the disk's refusal, if that is what it is."""
    if error is None:
        return None
    if isinstance(error, OSError) and errno.errorcode.get(error.errno or 0) in REFUSED:
        return error.errno
    if any(word in str(error).lower() for word in WORDS):
        return errno.ENOSPC
    return _errno(error.__cause__) or _errno(error.__context__)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0]


@contextmanager
def _orbax_is_quiet() -> Iterator[None]:
    """Its log, and its writing threads', say at length what is raised here anyway."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
