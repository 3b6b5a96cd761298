"""What `replay` is given: looked at before anything runs, with one clear error each."""

from collections.abc import Callable, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any
from zlib import crc32

import jax
import jax.extend.core as core
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from .. import _tree as tree
from .._check import at_least
from .._checksum import checksum

if TYPE_CHECKING:
    from ._walk import Run


def getter(batches: Any, length: int | None) -> tuple[int, Callable[[int], Any]]:
    """(T, index -> batch) of a function, or of what has indices and a length."""
    if not callable(batches) and not hasattr(batches, "__len__"):
        batches = getattr(batches, "__getitem__", batches)  # as a function of t
    if callable(batches):
        if length is None:
            raise ValueError("length: wanted a number of steps, as batches has none")
        at_least("length", length, 1)
        return length, batches
    if isinstance(batches, Mapping) or not hasattr(batches, "__getitem__"):
        raise ValueError(
            "batches: wanted a function of the index or a sequence, so that any batch "
            f"can be had again, came {type(batches).__name__}"
        )
    there = len(batches)
    length = there if length is None else length
    at_least("length", length, 1)
    if there < length:
        raise ValueError(f"batches: wanted {length}, as length says, came {there}")
    return length, lambda index: batches[index]


def stacked(numbers: range, batch: Callable[[int], Any]) -> tuple[np.ndarray, PyTree]:
    """The batches of these steps with a new leading axis, and their numbers."""

    def together(*leaves):
        on_host = all(isinstance(x, np.ndarray | np.generic | int) for x in leaves)
        return (np if on_host else jnp).stack(leaves)

    found = [batch(number) for number in numbers]
    try:
        return np.array(numbers, np.int32), jax.tree.map(together, *found)
    except (ValueError, TypeError) as error:
        said = str(error).split("\n")[0]
        raise ValueError(
            f"batches: wanted those of steps {numbers[0]} to {numbers[-1]}, which run "
            f"in one program, of one shape; segment=1 takes any ({said})"
        ) from None


def placed(state: PyTree, wrt: PyTree, batch: PyTree) -> tuple[PyTree, PyTree, Any]:
    """The first two as arrays of one mesh, if any is of one, and where what is whole
    lies.
    """
    leaves = [*jax.tree.leaves(state), *jax.tree.leaves(wrt)]
    if any(isinstance(x, Tracer) for x in leaves):
        raise ValueError(
            "state: wanted arrays, came tracers: replay is a loop on the host, which "
            "no jit or grad can hold; `scan` is the one for inside"
        )
    tree.check_floats("wrt", wrt)
    found = (getattr(x, "sharding", None) for x in (*leaves, *jax.tree.leaves(batch)))
    mesh = next((s.mesh for s in found if isinstance(s, NamedSharding)), None)
    whole = None if mesh is None else NamedSharding(mesh, P())

    def put(x):
        # Not weakly typed: a state must come out of a step as it went in.
        x = jnp.asarray(x, jnp.result_type(x))
        on_mesh = isinstance(x.sharding, NamedSharding)
        return x if whole is None or on_mesh else jax.device_put(x, whole)

    return jax.tree.map(put, state), jax.tree.map(put, wrt), whole


def places(state: PyTree, wrt: PyTree, whole: Any) -> tuple:
    """The shardings that `programs` keeps."""
    if whole is None:
        return None, None, None, None

    def of(leaves):
        return tuple(x.sharding for x in leaves)

    floats, _ = tree.floats(state)
    return of(jax.tree.leaves(state)), of(floats), of(jax.tree.leaves(wrt)), whole


def fits(step: Callable, objective: Callable, state: Any, batch: Any, wrt: Any) -> None:
    """ValueError unless a step gives back a state like the one that it got."""
    for name, fn in (("step", step), ("objective", objective)):
        try:
            hash(fn)
        except TypeError as error:
            raise ValueError(
                f"{name}: wanted what has a hash, as it is compiled once, came "
                f"{type(fn).__name__} ({error}); wrap it in a function"
            ) from None
    shapes = jax.eval_shape(step, state, batch, wrt)
    if not isinstance(shapes, tuple) or len(shapes) != 2:
        came = type(shapes).__name__
        raise ValueError(f"step: wanted (state, anything) of it, came {came}")
    before, after = tree.paths(state), tree.paths(shapes[0])
    if jax.tree.structure(state) != jax.tree.structure(shapes[0]):
        tree.check_alike("step: its new state", shapes[0], state)
        raise ValueError(
            "step: wanted a state of the same structure, came "
            f"{jax.tree.structure(shapes[0])} for {jax.tree.structure(state)}"
        )
    wrong = [
        f"{tree.described(before[path])}{path} became {tree.described(after[path])}"
        for path in before
        if tree.described(before[path]) != tree.described(after[path])
    ]
    if wrong:
        raise ValueError(f"step: wanted a state of the same types; {'; '.join(wrong)}")
    tree.check_scalar("objective", jax.eval_shape(objective, state, wrt))


def facts(step: Callable, objective: Callable, run: "Run") -> dict[str, Any]:
    """What a directory says it is of; digests, which say nothing by themselves, as
    lists.
    """
    first, last = run.batch(0), run.batch(run.steps - 1)
    return {
        "length": run.steps,
        "segment": run.segment,
        "branching": run.branching,
        "jax": jax.__version__,
        "step": [_digest(lambda *args: step(*args)[0], run.first, first, run.wrt)],
        "objective": [_digest(objective, run.first, run.wrt)],
        "state": [int(checksums(run.first))],
        "wrt": [int(checksums(run.wrt))],
        "batches": [int(checksums(first)), int(checksums(last))],
    }


checksums = jax.jit(checksum)


def _digest(f: Callable, *args: Any) -> int:
    """Of a program's operations, their settings and constants; not of its names."""
    said, arrays, counter = [], [], count()
    number: dict[Any, int] = {}

    def atom(v):
        if isinstance(v, core.Literal):
            arrays.append(v.val)
            return str(v.aval)
        return f"{number.setdefault(v, next(counter))}:{v.aval}"

    def simple(value):
        if isinstance(value, tuple):
            return all(map(simple, value))
        return value is None or isinstance(value, bool | int | float | str)

    def walk(program):
        jaxpr = getattr(program, "jaxpr", program)
        arrays.extend(getattr(program, "consts", ()))
        for eqn in jaxpr.eqns:
            said.append(f"{eqn.primitive.name}{[*map(atom, eqn.invars)]}")
            for key, value in sorted(eqn.params.items()):
                for part in value if isinstance(value, tuple | list) else (value,):
                    if hasattr(part, "eqns") or hasattr(part, "jaxpr"):
                        walk(part)
                if simple(value) and key != "name":
                    said.append(f"{key}={value}")
            said.append(f"{[*map(atom, eqn.outvars)]}")
        said.append(f"{[*map(atom, jaxpr.outvars)]}")

    walk(jax.make_jaxpr(f)(*args))
    return crc32(f"{said} {int(checksums(arrays))}".encode())
