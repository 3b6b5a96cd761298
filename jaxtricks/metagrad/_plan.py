"""What a gradient through training will cost, before anything is compiled."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import lax
from jaxtyping import PyTree

from .. import _tree as tree
from .._check import at_least
from ._costs import MEGA, Cost, Sizes, cheapest, cost, count, sizes
from ._scan import scan

HEAD = ("policy", "carries", "steps run", "of T", "device MB", "host MB", "compiled MB")


class Plan(NamedTuple):
    """What each policy costs; `print` shows a table."""

    length: int
    size: Sizes  # of the carry and of one step, in bytes
    costs: tuple[Cost, ...]
    chosen: Cost | None  # by `scan(..., budget_mb=)`

    def __str__(self) -> str:
        lines = [list(HEAD), *map(self._cells, self.costs)]
        if all(c.compiled is None for c in self.costs):
            lines = [cells[:-1] for cells in lines]
        wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [
            "  ".join(f"{cell:>{n}}" for cell, n in zip(cells, wide, strict=True))
            for cells in lines
        ]
        carry, step = (_mb(n) for n in (self.size.carry, self.size.step))
        table.insert(
            0, f"{self.length} steps; a carry takes {carry} MB, a step stores {step} MB"
        )
        if self.chosen is not None:
            table.append(f"for the budget: {_name(self.chosen)}")
        return "\n".join(table)

    def _cells(self, c: Cost) -> list[str]:
        compiled = "" if c.compiled is None else _mb(c.compiled)
        times = f"{c.evaluations / max(self.length, 1):.2f}x"
        sizes = (_mb(c.bytes), _mb(c.host), compiled)
        return [_name(c), str(c.carries), str(c.evaluations), times, *sizes]


def _name(c: Cost) -> str:
    return c.policy if c.branching is None else f"{c.policy}, k={c.branching}"


def _mb(n: int) -> str:
    return f"{n / MEGA:.2f}"


def plan(
    step: Callable[[Any, Any], tuple[Any, Any]],
    init: PyTree,
    xs: PyTree = None,
    *,
    length: int | None = None,
    branching: Sequence[int] = (2, 4, 8),
    budget_mb: float | int | None = None,
    compiled: bool = False,
) -> Plan:
    """What a gradient through `scan` costs under each policy; before a long run.

    bytes = carries stored * bytes of a carry + what one step computes

    Args:
      step, init, xs, length: what `scan` gets; of arrays, shapes are enough
        (`jax.ShapeDtypeStruct`).
      branching: the k for which "replay" is planned.
      budget_mb: megabytes (10^6), for which `chosen` is what `scan` would take.
      compiled: compile each gradient in init and the floats of xs, and ask the compiler
        what its temporaries take. Takes seconds to minutes; nothing is run.
    Returns:
      A Plan of Costs: carries stored at the worst moment, steps run in a gradient
      (exact), bytes on the device and the host. The bytes are those of whole arrays,
      on all devices of a mesh together, an estimate: XLA was seen to take from half
      to twice as much where T >= 64, more where a carry is a few numbers.
    Gradient: none, it is a table.
    Cost: two traces of a step.
    Raises: ValueError for branching < 2 or a budget that nothing keeps; what `lax.scan`
      raises.
    Source: definition.
    Example:
      >>> def step(w, x):
      ...     return jax.numpy.tanh(w + x.sum(0)), None
      >>> shape = jax.ShapeDtypeStruct
      >>> found = plan(step, shape((64,), "float32"), shape((4096, 32, 64), "float32"))
      >>> [(c.policy, c.branching, c.carries, c.evaluations) for c in found.costs[-2:]]
      [('replay', 4, 24, 28672), ('replay', 8, 32, 20480)]
    """
    for k in branching:
        at_least("branching", k, 2)
    jax.eval_shape(partial(lax.scan, step, length=length), init, xs)
    steps, size = count(xs, length), sizes(step, init, xs)
    policies = [(p, None) for p in ("none", "step", "offload", "sqrt")]
    policies += [("replay", k) for k in branching]
    found = [cost(policy, k, steps, size) for policy, k in policies]
    if compiled:
        run = partial(_temporaries, step, init, xs, length)
        found = [c._replace(compiled=run(c.policy, c.branching or 2)) for c in found]
    best = None if budget_mb is None else cheapest(budget_mb, steps, size)
    return Plan(steps, size, tuple(found), best)


def _temporaries(step, init, xs, length, policy, branching) -> int | None:
    """Bytes, where the compiler tells, of a gradient in the floats of the carry."""

    def total(floats, xs):
        carry, ys = scan(
            step, join(floats), xs, length=length, policy=policy, branching=branching
        )
        return tree.dot((carry, ys), (carry, ys))

    floats, join = tree.floats(init)
    lowered = jax.jit(jax.grad(total)).lower(floats, xs)
    stats = lowered.compile().memory_analysis()
    return None if stats is None else stats.temp_size_in_bytes
