"""A function that differentiation never opens: what it stores is the inputs.

`jax.checkpoint` does as much for one reverse mode: beside it, the value is the plain
function again, whose inside the next reverse mode stores. Here the value, its tangent,
the transpose of that, and theirs in turn are one operation each, at any order, under
scan and vmap too. A platform may run the value by a kernel of its own: which one is
settled when the program is lowered, so that tracing asks for no device.
"""

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from .._compat import partitioned, suits, target

log = logging.getLogger("jaxtricks.kernels")


class Lowering(NamedTuple):
    """What takes a function's place on a platform."""

    run: Callable  # with the function's signature
    lacks: Callable[[], str | None] = lambda: None  # what it cannot take; asked late
    plain: bool = False  # of XLA's own operations, which nothing stands in the way of


def atomic(
    f: Callable,
    *args: Any,
    on: Mapping[str, Lowering] | None = None,
    pull: Callable | None = None,
    name: str = "",
) -> Any:
    """f(*args): pytrees of arrays to one of float or integer arrays.

    f closes over no array. on: platform ("tpu", "cuda", or "any") -> what takes f's
    place there. pull(args, cotangents): one cotangent for each of the args (None where
    it has none), in place of the derived transpose.
    """
    leaves, treedef = jax.tree.flatten(args)

    def flat(g):
        return lambda *leaves: jax.tree.leaves(g(*jax.tree.unflatten(treedef, leaves)))

    jaxpr, out = jax.make_jaxpr(
        lambda *leaves: f(*jax.tree.unflatten(treedef, leaves)), return_shape=True
    )(*leaves)
    structure = jax.tree.structure(out)

    def flat_pull(leaves, cotangents):
        assert pull is not None
        args = jax.tree.unflatten(treedef, leaves)
        pulled = pull(args, jax.tree.unflatten(structure, cotangents))
        return treedef.flatten_up_to(tuple(pulled))

    kernels = {k: g._replace(run=flat(g.run)) for k, g in (on or {}).items()}
    if "any" in kernels:  # traced now, so that the effects of interpret mode show
        traced = jax.make_jaxpr(kernels["any"].run)(*leaves)
        kernels["any"] = Lowering(core.jaxpr_as_fun(traced))
    out = atomic_p.bind(
        *leaves,
        jaxpr=jaxpr,
        on=tuple(kernels.items()),
        pull=pull and flat_pull,
        name=name,
    )
    return jax.tree.unflatten(structure, out)


def _evaluate(*args, jaxpr):
    return core.jaxpr_as_fun(jaxpr)(*args)


def _put(xs, at, new):
    """`xs` with the entries at the places `at` replaced."""
    replaced = dict(zip(at, new, strict=True))
    return [replaced.get(i, x) for i, x in enumerate(xs)]


# --- derivatives ----------------------------------------------------------------------


def _jvp(primals, tangents, *, jaxpr, on, pull, name):
    out = atomic_p.bind(*primals, jaxpr=jaxpr, on=on, pull=pull, name=name)
    moving = [i for i, t in enumerate(tangents) if type(t) is not ad.Zero]
    floats = [i for i, x in enumerate(out) if jnp.issubdtype(x.dtype, jnp.inexact)]

    def tangent(primals, tangents):
        def f(*some):
            out = _evaluate(*_put(primals, moving, some), jaxpr=jaxpr)
            return [out[i] for i in floats]

        return jax.jvp(f, [primals[i] for i in moving], tangents)[1]

    def transposed(args, cotangents):
        primals, tangents = args
        pulled = pull(primals, _put([None] * len(out), floats, cotangents))
        by_tangents = [pulled[i] for i in moving]
        if any(t is None for t in tangents):  # what it is linear in
            return [None] * len(primals), by_tangents
        by_primals = jax.vjp(lambda primals: tangent(primals, tangents), primals)[1]
        return *by_primals(cotangents), by_tangents

    moved = atomic(
        tangent,
        list(primals),
        [tangents[i] for i in moving],
        pull=pull and transposed,
    )
    still = [ad.Zero(jax.typeof(x).to_tangent_aval()) for x in out]
    return out, _put(still, floats, moved)


def _transpose(cotangents, *args, jaxpr, on, pull, name):
    """Of a function linear in the undefined arguments: its derivative at 0."""
    del on, name
    linear = [i for i, x in enumerate(args) if ad.is_undefined_primal(x)]
    known = _put(args, linear, [None] * len(linear))
    origin = [ad.Zero(args[i].aval) for i in linear]

    def derived(known, cotangents):
        def f(*some):
            return _evaluate(*_put(known, linear, some), jaxpr=jaxpr)

        return jax.vjp(f, *map(ad.instantiate_zeros, origin))[1](cotangents)

    def given(known, cotangents):
        pulled = pull(known, cotangents)
        return tuple(pulled[i] for i in linear)

    cotangents = list(map(ad.instantiate_zeros, cotangents))
    pulled = atomic(derived if pull is None else given, known, cotangents)
    return _put([None] * len(args), linear, pulled)


def _batch(args, axes, *, jaxpr, on, pull, name):
    """Batched by the rules of what is inside; the derived transpose sums over it."""
    del pull
    mapped = functools.partial(jax.vmap, in_axes=tuple(axes))
    kernels = {k: g._replace(run=mapped(g.run)) for k, g in on}
    out = atomic(mapped(core.jaxpr_as_fun(jaxpr)), *args, on=kernels, name=name)
    return out, [0] * len(out)


def _types(*_, jaxpr, on, pull, name):
    del pull, name
    forced = [g.run.args[0].effects for platform, g in on if platform == "any"]
    return jaxpr.out_avals, (forced or [jaxpr.effects])[0]


# --- lowering -------------------------------------------------------------------------


@functools.cache
def _say(*words):
    """Once for each choice."""
    log.info("%s on %s: %s", *words)


def _lowering(platform):
    """The rule of a platform, or of all others."""

    def rule(ctx, *args, jaxpr, on, pull, name):
        del pull
        on, run = dict(on), functools.partial(_evaluate, jaxpr=jaxpr)
        if "any" in on:
            run = on["any"].run
        elif platform in on and on[platform].plain:
            run = on[platform].run
        elif platform in on:
            if why := _obstacle(ctx, platform, on[platform]):
                _say(name, platform, f"XLA, as {why}")
            else:
                _say(name, platform, "its kernel")
                run = on[platform].run
        with target(platform):
            return mlir.lower_fun(run, multiple_results=True)(ctx, *args)

    return rule


def _obstacle(ctx, platform, kernel) -> str | None:
    """Why the kernel cannot run where the program is lowered for, if it cannot."""
    if partitioned(ctx):
        return "the compiler partitions the program; see shard_map"
    if not suits(platform):
        return "the device is not known to run the kernel"
    lacks = kernel.lacks()
    return lacks and f"the kernel cannot take {lacks}"


def _run(*args, **params):
    return jax.jit(functools.partial(atomic_p.bind, **params))(*args)


atomic_p = core.Primitive("atomic")
atomic_p.multiple_results = True
atomic_p.def_impl(_run)
atomic_p.def_effectful_abstract_eval(_types)
ad.primitive_jvps[atomic_p] = _jvp
ad.primitive_transposes[atomic_p] = _transpose
batching.primitive_batchers[atomic_p] = _batch
mlir.register_lowering(atomic_p, _lowering(None))
for _platform in ("tpu", "cuda"):
    mlir.register_lowering(atomic_p, _lowering(_platform), platform=_platform)
