"""The gradient of a training run that no single program holds: a loop on the host.

Forward once, then backward segment by segment, each from a state that is stored or run
to again from the nearest one. What is on the disk, and the numbers of the segments,
say where a killed run goes on.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .. import _tree as tree
from .._check import at_least
from ._disk import Disk, Store
from ._given import facts, fits, getter, placed, places
from ._progress import bar
from ._segment import programs
from ._walk import Run, Walk


class Replay(NamedTuple):
    """A run and its gradient."""

    value: Float[Array, ""]  # of the objective
    grad: PyTree  # d value / d wrt, like wrt
    state: PyTree  # after the last step
    grad_state: PyTree  # d value / d state before the first; no floats as they were
    evaluations: int  # steps that were run by this call


def replay(
    step: Callable[[Any, Any, Any], tuple[Any, Any]],
    state: PyTree,
    batches: Callable[[int], Any] | Sequence | Any,
    objective: Callable[[Any, Any], Any],
    wrt: PyTree,
    *,
    length: int | None = None,
    segment: int = 8,
    branching: int = 4,
    directory: str | Path | None = None,
    save_every: int | None = None,
    in_memory: int = 4,
    exact: bool = True,
    progress: bool = False,
) -> Replay:
    """The gradient of a run of any length, resumable; where one jit does not hold it.

    state_{t+1}, _ = step(state_t, batches(t), wrt);   value = objective(state_T, wrt)

    Args:
      step: (state, batch, wrt) -> (state, anything), deterministic: a random one takes
        its key from the state or the batch. It is compiled, once for the same function
        and objective; it may be `scan`'s with wrt beside.
      state: the first, any pytree, sharded or not.
      batches: what gives batch t: a function of t, or a sequence or grain source with
        `[t]`. Asked for more than once.
      objective: (state, wrt) -> float[].
      wrt: pytree of floats that step and objective read, to be differentiated in.
      length: T; by default all of a sequence.
      segment: steps in one compiled program, of which it stores the states. 1 takes
        batches of any shapes.
      branching: k of the tree of stored states: (k - 1) log_k(T / segment) + 1 of them.
      directory: where states lie that are not in memory, and what a later call with the
        same arguments goes on from, after a kill in whichever direction. Needs orbax.
        It is never deleted.
      save_every: steps of work after which it is saved where to go on; default T / 32.
      in_memory: states in memory when there is a directory; otherwise all are, in the
        host's where a device has its own.
      exact: compare every state that is run to again, bit by bit, with the first time.
      progress: show a bar. Needs rich.
    Returns:
      Replay(value, grad, state, grad_state, evaluations). A resumed run gives the same
      bits. On a mesh, floats differ from one device's by the order of sums, which
      training amplifies: 1e-5 relative over tens of steps.
    Gradient: it is the gradient, exact, in at least f32 summed over the steps.
    Cost: T steps forward, 2 T in the segments (T if segment is 1), and about
      T (log_k(T / segment) - 1) on the way to them. Memory: the states above, and
      `segment` of them on the device.
    Raises: ValueError for a step that changes the state's structure or types, or gives
      other numbers the second time, for batches that are too few or differ in shape,
      for a directory of another run; FloatingPointError with the step at which NaN
      appears, forward or backward; OSError where the disk is full, which leaves what is
      there whole.
    Source: Engstrom et al., "Optimizing ML Training with Metagradient Descent", 2025,
      arXiv:2503.13751, REPLAY, algorithm 1. Differs: leaves of the tree are segments of
      several steps; the stored states are kept on the disk, so that it resumes.
    Example:
      >>> def step(w, x, rate):
      ...     return w - rate * (w - x), None
      >>> run = replay(step, 1.0, [0.0] * 100, lambda w, rate: w**2 / 2, 0.01)
      >>> print(run.grad)  # -100 * 0.99^199
      -13.5333
    """
    at_least("segment", segment, 1)
    at_least("branching", branching, 2)
    at_least("in_memory", in_memory, 1)
    at_least("save_every", save_every, 1)
    steps, batch = getter(batches, length)
    first = batch(0)
    state, wrt, whole = placed(state, wrt, first)
    fits(step, objective, state, first, wrt)
    compiled = programs(step, objective, places(state, wrt, whole))
    zero = jax.device_put(jnp.zeros(()), whole)
    run = Run(compiled, state, batch, wrt, steps, segment, branching, exact, zero)
    with ExitStack() as stack:
        disk = None
        if directory is not None:
            disk = Disk(Path(directory), facts(step, objective, run))
            stack.callback(disk.close)
        every = -(-steps // 32) if save_every is None else save_every
        walk = Walk(run, Store(disk, in_memory, state), disk, every)
        walk.tick = stack.enter_context(bar(progress, walk.left))
        last = walk.forward()
        value, ways, grad = walk.backward(last)
        final = walk.final(last)
    _, join_wrt = tree.floats(wrt)
    _, join_state = tree.floats(state)
    grad = tree.as_like(join_wrt(list(grad)), wrt)
    return Replay(value, grad, final, join_state(list(ways)), walk.ran)
