"""Checkpoints of one arm: state and data iterator in one atomic step, saved in the
background, read back newest first, and never trusted.

Each carries a checksum, because a flipped byte inside an array would otherwise be
restored as a number.
"""

import contextlib
import gc
import io
import json
import shutil
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree


class Unreadable(Exception):
    """A checkpoint that is missing or not what was saved."""

    def __init__(self, step: int, reason: str):
        super().__init__(f"checkpoint {step} is broken ({reason})")
        self.step = step


class Checkpoints:
    """The last `keep` checkpoints in a folder; closing it ends pending saves."""

    def __init__(self, folder: Path, *, keep: int, say: Callable[[str], None]):
        self._folder, self._say = folder, say
        folder.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,  # what a kill left half written
        )
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception) -> None:
        self._manager.close()

    def save(self, step: int, state: PyTree, stream: grain.DatasetIterator) -> None:
        """Returns once the state is copied; the writing goes on in the background."""
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            stream=grain.checkpoint.CheckpointSave(stream),
            check=ocp.args.JsonSave({"crc32": _crc32(state, stream)}),
        )
        self._manager.save(step, args=items)

    def restore(
        self, state: PyTree, stream: grain.DatasetIterator
    ) -> tuple[int, PyTree]:
        """(step, state) of the newest good checkpoint, or (0, state); moves the stream.

        `state` gives the structure. Checkpoints that cannot be read are deleted.
        """
        beginning = stream.get_state()
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return step, self.read(step, state, stream)
            except Unreadable as reason:
                self.drop(step)
                stream.set_state(beginning)
                left = self._manager.latest_step()
                back = f"checkpoint {left}" if left else "the start"
                self._say(f"{reason}; back to {back}")
        return 0, state

    def read(self, step: int, state: PyTree, stream: grain.DatasetIterator) -> PyTree:
        """The state at `step`, and the stream moved there; or Unreadable."""
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(like),
            stream=grain.checkpoint.CheckpointRestore(stream),
            check=ocp.args.JsonRestore(),
        )
        with _quiet():
            try:
                found = self._manager.restore(step, args=items)
                if _crc32(found["state"], stream) != found["check"]["crc32"]:
                    raise ValueError("its checksum differs")
                return found["state"]
            except Exception as error:  # whatever the broken file caused in orbax
                reason = f"{type(error).__name__}: {error}".split("\n")[0][:100]
        raise Unreadable(step, reason)

    def drop(self, since: int) -> None:
        """Deletes the checkpoints from step `since` on."""
        for step in self._manager.all_steps():
            if step >= since:
                shutil.rmtree(self._folder / str(step), ignore_errors=True)
        self._manager.reload()


def _crc32(state: PyTree, stream: grain.DatasetIterator) -> int:
    crc = zlib.crc32(json.dumps(stream.get_state(), sort_keys=True).encode())
    for leaf in jax.tree.leaves(state):
        crc = zlib.crc32(np.ascontiguousarray(leaf), crc)
    return crc


@contextlib.contextmanager
def _quiet():
    """Keeps off the screen what a broken file makes orbax's reading threads print."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        gc.collect()
        sys.unraisablehook = hook
