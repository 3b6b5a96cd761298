"""A function that differentiation never opens: what it stores is the inputs.

`jax.checkpoint` does as much for one reverse mode: beside it, the value is the plain
function again, whose inside the next reverse mode stores. Here the value, its tangent,
the transpose of that, and theirs in turn are one operation each, at any order, under
scan and vmap too.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import ad, batching, mlir


def atomic(f: Callable, *args: Any) -> Any:
    """f(*args): pytrees of arrays to one of float arrays; f closes over no array."""
    leaves, treedef = jax.tree.flatten(args)
    jaxpr, out = jax.make_jaxpr(
        lambda *leaves: f(*jax.tree.unflatten(treedef, leaves)), return_shape=True
    )(*leaves)
    return jax.tree.unflatten(
        jax.tree.structure(out), atomic_p.bind(*leaves, jaxpr=jaxpr)
    )


def _evaluate(*args, jaxpr):
    return core.jaxpr_as_fun(jaxpr)(*args)


def _put(xs, at, new):
    """`xs` with the entries at the places `at` replaced."""
    replaced = dict(zip(at, new, strict=True))
    return [replaced.get(i, x) for i, x in enumerate(xs)]


def _jvp(primals, tangents, *, jaxpr):
    moving = [i for i, t in enumerate(tangents) if type(t) is not ad.Zero]

    def tangent(primals, tangents):
        def f(*some):
            return _evaluate(*_put(primals, moving, some), jaxpr=jaxpr)

        return jax.jvp(f, [primals[i] for i in moving], tangents)[1]

    moved = atomic(tangent, list(primals), [tangents[i] for i in moving])
    return atomic_p.bind(*primals, jaxpr=jaxpr), moved


def _transpose(cotangents, *args, jaxpr):
    """Of a function linear in the undefined arguments: its derivative at 0."""
    linear = [i for i, x in enumerate(args) if ad.is_undefined_primal(x)]
    known = _put(args, linear, [None] * len(linear))
    origin = [ad.Zero(args[i].aval) for i in linear]

    def pull(known, cotangents):
        def f(*some):
            return _evaluate(*_put(known, linear, some), jaxpr=jaxpr)

        return jax.vjp(f, *map(ad.instantiate_zeros, origin))[1](cotangents)

    pulled = atomic(pull, known, list(map(ad.instantiate_zeros, cotangents)))
    return _put([None] * len(args), linear, pulled)


def _batch(args, axes, *, jaxpr):
    out = atomic(jax.vmap(core.jaxpr_as_fun(jaxpr), in_axes=tuple(axes)), *args)
    return out, [0] * len(out)


atomic_p = core.Primitive("atomic")
atomic_p.multiple_results = True
atomic_p.def_impl(lambda *args, jaxpr: jax.jit(core.jaxpr_as_fun(jaxpr))(*args))
atomic_p.def_abstract_eval(lambda *_, jaxpr: jaxpr.out_avals)
ad.primitive_jvps[atomic_p] = _jvp
ad.primitive_transposes[atomic_p] = _transpose
batching.primitive_batchers[atomic_p] = _batch
mlir.register_lowering(atomic_p, mlir.lower_fun(_evaluate, multiple_results=True))
