"""Permutation specs by tracing: the names of what a trace leaves free to permute."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree

from ._axes import Axes, Axis, Factor
from ._axes_rules import run
from ._permutation import layouts


def permutation_spec(
    function: Callable[..., Any], params: PyTree, *inputs: Any, nested: bool = True
) -> PyTree:
    """The permutation spec of any model, from a trace of it.

    Args:
      function: (params, *inputs) -> outputs, whose order counts: logits, and not
        hidden states. A flax model is such a function (`model.apply`, `nnx.merge`).
      params: pytree of parameters, or their shapes.
      nested: find "parent/name", orders of units within each group or head by
        itself (static); False gives one order for all groups.
      inputs: example inputs, or their shapes; all that a function needs and is not
        permuted.
    Returns:
      A pytree like `params` of strings, names "p0", "p1", ... in the order of the
      leaves, "p0/p1" within p0. Every order is one of the function's symmetries; not
      every symmetry is found.
    Gradient: none.
    Cost: one trace; nothing is computed.
    Raises: ValueError for an operation it cannot follow, with its name.
    Source: Ainsworth et al., "Git Re-Basin: Merging Models modulo Permutation
      Symmetries", 2022, arXiv:2209.04836, sec. 2. Differs: the paper's specs are
      written by hand.
    Example:
      >>> import jax.numpy as jnp
      >>> def model(p, x):
      ...     return jax.nn.relu(x @ p["in"]) @ p["out"]
      >>> params = {"in": jnp.ones((2, 8)), "out": jnp.ones((8, 3))}
      >>> permutation_spec(model, params, jnp.ones((1, 2)))
      {'in': '_ p0', 'out': 'p0 _'}
    """
    closed = jax.make_jaxpr(function)(params, *inputs)
    leaves = jax.tree.leaves(params)
    trace = Axes()
    arguments = [trace.fresh(v.aval.shape) for v in closed.jaxpr.invars]
    for axes in arguments[len(leaves) :]:
        trace.fix(axes)
    consts = [trace.constant(c) for c in closed.consts]
    outs = run(trace, closed.jaxpr, consts, arguments)
    for axes in outs:
        trace.fix(axes)
    labels = _labels(trace, arguments[: len(leaves)], nested)
    spec = jax.tree.unflatten(jax.tree.structure(params), labels)
    layouts(spec, params)
    return spec


def _labels(trace: Axes, arguments: list[list[Axis]], nested: bool) -> list[str]:
    """The names, in the order of the parameters."""
    names: dict[int, str] = {}
    ups = _parents(trace, arguments) if nested else {}
    labels = []
    for axes in arguments:
        words = []
        for axis in axes:
            own = []
            for factor in trace.flat(axis):
                own.append(_name(factor, names, ups))
                if len(trace.flat(axis)) > 1 and not factor.fixed:
                    own[-1] += f"={factor.size}"
            alone = own[0] if len(own) == 1 else f"({' '.join(own)})"
            words.append("_" if not own or alone.isdigit() else alone)
        labels.append(" ".join(words))
    return labels


def _name(factor: Factor, names: dict, ups: dict) -> str:
    if factor.fixed:
        return str(factor.size)
    if id(factor) not in names:
        up = ups.get(id(factor))
        before = f"{_name(up, names, ups)}/" if up is not None else ""
        names[id(factor)] = f"{before}p{len(names)}"
    return names[id(factor)]


def _parents(trace: Axes, arguments: list[list[Axis]]) -> dict[int, Factor]:
    """For a factor that never comes without another one of its axis, that one."""
    arrays = [[trace.flat(axis) for axis in axes] for axes in trace.seen + arguments]
    found: dict[int, Factor] = {}
    pairs = {}
    for axes in arguments:
        for axis in axes:
            own = trace.flat(axis)
            for i, child in enumerate(own):
                for up in own[:i]:
                    if not child.fixed and not up.fixed and child is not up:
                        pairs[id(child), id(up)] = (child, up)
    for child, up in pairs.values():
        if id(child) in found or id(up) in found or _is_parent(child, found):
            continue
        once = all(
            sum(f is up for axis in axes for f in axis) == 1
            for axes in arrays
            if any(f is child for axis in axes for f in axis)
        )
        if once and not _crossed(trace, child, up):
            found[id(child)] = up
    return found


def _is_parent(factor: Factor, found: dict) -> bool:
    return any(up is factor for up in found.values())


def _crossed(trace: Axes, child: Factor, up: Factor) -> bool:
    """Whether units of different parents meet in a contraction."""
    for free_l, free_r, contracted, _ in trace.contracted:
        inside = [f for axis in contracted for f in trace.flat(axis)]
        if not any(f is child for f in inside) or any(f is up for f in inside):
            continue
        sides = [[f for axis in s for f in trace.flat(axis)] for s in (free_l, free_r)]
        if any(f is up for side in sides for f in side):
            return True
    return False
