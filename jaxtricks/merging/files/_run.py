"""All steps, several in flight on threads, within the memory that the plan says."""

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import numpy as np

from ._compute import compute, computing, memory
from ._methods import leaf_of
from ._plan import Plan, Step
from ._progress import Progress
from ._tensors import Checkpoint

_LEAST = 64_000_000  # bytes in flight, however small the tensors are


@runtime_checkable
class Writer(Protocol):
    """What takes the results: a tensor's parts come in order, tensors in any."""

    def held(self, step: Step) -> int:
        """Bytes of memory that it takes until a tensor is whole."""
        ...

    def put(self, step: Step, begin: int, part: np.ndarray) -> None: ...

    def close(self) -> None: ...


def needs(
    plan: Plan, checkpoints: Mapping[str, Checkpoint], writer: Writer | None = None
) -> dict[str, int]:
    """Bytes that each step takes while it is in flight."""
    found = {}
    for step in plan.steps:
        inputs = [*step.inputs, *([] if step.base is None else [step.base])]
        read = sum(checkpoints[model].held(name) for model, name in inputs)
        written = 0 if writer is None else writer.held(step)
        width = computing(step, checkpoints).itemsize
        found[step.name] = memory(step, plan.method, width) + read + written
    return found


def budget(each: Mapping[str, int], workers: int) -> int:
    """Bytes that a run takes besides the files' pages and the interpreter."""
    largest = sorted(each.values(), reverse=True)
    return max(largest[0], min(sum(largest[:workers]), _LEAST))


def run(
    plan: Plan,
    checkpoints: Mapping[str, Checkpoint],
    writer: Writer,
    progress: Progress,
    *,
    workers: int,
    seed: int,
) -> None:
    """Writes every step; the first error ends it."""
    leaf = leaf_of(plan.name)
    each = needs(plan, checkpoints, writer)
    room = _Room(budget(each, workers))

    def one(step: Step) -> None:
        if room.stopped:
            return
        room.enter(each[step.name])
        try:
            with np.errstate(all="ignore"):  # what a dtype cannot hold is inf there
                for begin, part in compute(step, plan.method, leaf, checkpoints, seed):
                    if room.stopped:
                        return
                    writer.put(step, begin, part)
                    progress.add(part.nbytes)
        except BaseException:
            room.stop()
            raise
        finally:
            room.leave(each[step.name])

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(one, step) for step in plan.steps]
        try:
            for future in futures:
                future.result()
        except BaseException:
            room.stop()
            pool.shutdown(cancel_futures=True)
            raise


class _Room:
    """Bytes that steps in flight may use; the largest step alone always fits."""

    def __init__(self, total: int):
        self._free, self._turn = total, threading.Condition()
        self.stopped = False

    def enter(self, need: int) -> None:
        with self._turn:
            self._turn.wait_for(lambda: self.stopped or need <= self._free)
            self._free -= need

    def leave(self, need: int) -> None:
        with self._turn:
            self._free += need
            self._turn.notify_all()

    def stop(self) -> None:
        with self._turn:
            self.stopped = True
            self._turn.notify_all()
