"""The loop of `replay`: forward to the end, and back segment by segment."""

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, PyTree

from .. import _tree as tree
from ._disk import Disk, Store
from ._given import checksums, stacked
from ._lazy import again, kept
from ._progress import Tick
from ._segment import Programs, has_nan

_has_nan = jax.jit(has_nan)


class Run(NamedTuple):
    """What is to be run."""

    programs: Programs
    first: PyTree  # the state before step 0
    batch: Callable[[int], Any]
    wrt: PyTree
    steps: int
    segment: int
    branching: int
    exact: bool
    whole: Array  # float[], an array that lies where a whole one is to

    @property
    def leaves(self) -> int:
        """Segments."""
        return -(-self.steps // self.segment)

    def numbers(self, leaf: int) -> range:
        """Of the steps of a segment."""
        return range(leaf * self.segment, min((leaf + 1) * self.segment, self.steps))


class Walk:
    """Where a run stands; place n is that before segment n."""

    def __init__(self, run: Run, store: Store, disk: Disk | None, every: int):
        self._run, self._store, self._disk, self._every = run, store, disk, every
        self.tick: Tick = lambda steps, what: None
        self.ran = 0
        self._saved = 0  # `ran` when it was last saved where to go on
        self._rolling: deque[int] = deque(maxlen=2)  # the places of those states
        self._launched: deque[tuple] = deque()
        self._marks: dict[int, int] = {}  # of the states, the first time
        self._checked = not run.exact

    def forward(self) -> PyTree | None:
        """The last state, or None where the way back has begun already."""
        if self._backs():
            return None
        return self._last(self._kept(self._run.leaves - 1))

    def _last(self, keep: frozenset[int]) -> PyTree:
        last = self._reach(self._run.leaves, keep, "forward")
        self._look()
        if self._disk is not None:
            self._disk.save("state", self._run.leaves, last)
        return last

    def backward(self, last: PyTree | None) -> tuple[Array, tuple, tuple]:
        """(value, gradient in the floats of the first state, that in wrt)."""
        run, backs = self._run, self._backs()
        if backs:
            assert self._disk is not None
            value, ways, grad = self._disk.load("back", backs[0], self._like())
        else:
            value, ways, grad = run.programs.finish(last, run.wrt)
            if bool(_has_nan((value, ways, grad))):
                raise FloatingPointError("NaN in the objective or its gradient")
        for leaf in reversed(range(backs[0] if backs else run.leaves)):
            state = self._reach(leaf, self._kept(leaf), "backward")
            data = stacked(run.numbers(leaf), run.batch)
            ways, grad, nans = run.programs.backward(state, data, run.wrt, ways, grad)
            n = len(data[0])
            self._did("backward", leaf, nans, None, n if n == 1 else 2 * n)
            self._rolling.clear()
            self._keep(self._kept(max(leaf - 1, 0)))
            if self._disk is not None and (self._due() or leaf == 0):
                self._look()
                self._disk.save("back", leaf, (value, ways, grad))
                for old in self._backs()[2:]:  # the one before is whole by now
                    self._disk.drop("back", old)
        self._look()
        return value, ways, grad

    def final(self, last: PyTree | None) -> PyTree:
        """The state after the last step; run to again if someone deleted it."""
        last = self._last(frozenset()) if last is None else last
        if self._disk is not None:
            self._disk.wait()
        return last

    def left(self) -> int:
        """Steps that are still to be run, a little more where it was killed."""
        run, backs = self._run, self._backs()
        begin = backs[0] if backs else run.leaves
        segments = begin - max(self._places(begin), default=0)
        for leaf, start in again(run.leaves, run.branching):
            if leaf < begin:
                segments += leaf - start + 1 + (run.segment > 1)
        return segments * run.segment

    def _reach(self, leaf: int, keep: frozenset[int], way: str) -> PyTree:
        """The state before a segment, from the nearest one that is stored."""
        start = max(self._places(leaf), default=0)
        state = self._store.get(start) if start else self._run.first
        for place in range(start, leaf):
            if place in keep - {0}:
                self._store.put(place, state)
            if place and self._disk is not None and self._due():
                self._look()
                self._disk.save("state", place, state)
                self._rolling.append(place)
                self._keep(keep)
            state = self._step(place, state, way)
        return state

    def _step(self, leaf: int, state: PyTree, way: str) -> PyTree:
        """A segment forward; the first of all twice."""
        run = self._run
        data = stacked(run.numbers(leaf), run.batch)
        found, nans, mark = run.programs.forward(state, data, run.wrt)
        self._did(way, leaf, nans, mark, len(data[0]))
        if not self._checked:
            self._checked = True
            other = stacked(run.numbers(leaf), run.batch)
            if int(checksums(data)) != int(checksums(other)):
                raise ValueError(
                    "batches: wanted the same batch whenever an index is asked for, "
                    f"came others for steps {data[0][0]} to {data[0][-1]}"
                )
            _, nans, mark = run.programs.forward(state, data, run.wrt)
            self._did(way, leaf, nans, mark, len(data[0]))
            self._look()
        return jax.tree.unflatten(jax.tree.structure(run.first), found)

    def _did(self, way: str, leaf: int, nans: Any, mark: Any, steps: int) -> None:
        self.ran += steps
        self.tick(steps, way)
        self._launched.append((leaf, nans, mark))
        self._look(backlog=2)

    def _look(self, backlog: int = 0) -> None:
        """At what was launched, but for the last, so that the device need not wait."""
        while len(self._launched) > backlog:
            leaf, nans, mark = self._launched.popleft()
            steps = self._run.numbers(leaf)
            at = np.flatnonzero(np.asarray(nans))
            if at.size:
                step = steps[at[-1] if mark is None else at[0]]
                raise FloatingPointError(_nan(step, self._run.steps, mark is None))
            if mark is None or not self._run.exact:
                continue
            if self._marks.setdefault(leaf, int(mark)) != int(mark):
                raise ValueError(
                    "step: wanted a deterministic one, came another state after step "
                    f"{steps[-1]} when steps {steps[0]} to {steps[-1]} ran again. Keys "
                    "belong in the state or the batch, batches come by their index; on "
                    "GPUs set XLA_FLAGS=--xla_gpu_deterministic_ops=true, or exact="
                    "False for rounding alone"
                )

    def _due(self) -> bool:
        due = self.ran - self._saved >= self._every
        if due:
            self._saved = self.ran
        return due

    def _kept(self, leaf: int) -> frozenset[int]:
        return kept(leaf, self._run.leaves, self._run.branching)

    def _keep(self, wanted: frozenset[int]) -> None:
        """The last state too, which is the result's."""
        self._store.keep({*wanted, *self._rolling, self._run.leaves})

    def _places(self, leaf: int) -> set[int]:
        return {place for place in self._store.places() if place <= leaf}

    def _backs(self) -> list[int]:
        """How far back it is; the furthest first."""
        return [] if self._disk is None else self._disk.numbers("back")

    def _like(self) -> tuple:
        """Types and places of what `backward` saves."""
        run = self._run
        shapes = jax.eval_shape(run.programs.finish, run.first, run.wrt)
        floats, _ = tree.floats(run.first)
        lie = (run.whole, tuple(floats), tuple(jax.tree.leaves(run.wrt)))
        return jax.tree.map(
            lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at.sharding),
            shapes,
            lie,
        )


def _nan(step: int, steps: int, back: bool) -> str:
    if not back:
        return (
            f"NaN in the state after step {step} of {steps}, on the way forward: lower "
            "the learning rate, or clip"
        )
    return (
        f"NaN in the gradient at step {step} of {steps}, on the way back, while the "
        "state is finite: an infinite slope, as of a root at 0 in the optimizer "
        "(jaxtricks.optimizers.differentiable mends it) or in the loss"
    )
