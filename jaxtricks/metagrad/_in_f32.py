"""A function that computes in low precision, as it would have in f32.

Its program is traced, and run again operation by operation with every bf16 or f16
number in f32; conversions to those types are left out.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.extend.core as core
import jax.numpy as jnp
from jax import lax
from jaxtyping import PyTree

INLINE = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr"}


def in_f32(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """f of one tree. What a custom_vjp, shard_map or kernel holds stays as it is."""

    def precise(x: PyTree) -> PyTree:
        program, shapes = jax.make_jaxpr(f, return_shape=True)(x)
        found = _run(program.jaxpr, program.consts, jax.tree.leaves(x))
        return jax.tree.unflatten(jax.tree.structure(shapes), found)

    return precise


def programs(value: Any) -> Iterator[Any]:
    """Those in an equation's parameters."""
    for part in value if isinstance(value, tuple | list) else (value,):
        if hasattr(part, "eqns") or hasattr(part, "jaxpr"):
            yield getattr(part, "jaxpr", part)


def equations(jaxpr: Any) -> Iterator[Any]:
    """All, with those of the programs inside."""
    for eqn in jaxpr.eqns:
        yield eqn
        for param in eqn.params.values():
            for inner in programs(param):
                yield from equations(inner)


def is_low(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32


def _up(x: Any) -> Any:
    low = hasattr(x, "dtype") and is_low(x.dtype)
    return jnp.asarray(x, jnp.float32) if low else x


def _run(jaxpr: Any, consts: Sequence, args: Sequence) -> list:
    values = dict(zip(jaxpr.constvars, map(_up, consts), strict=True))
    values |= zip(jaxpr.invars, map(_up, args), strict=True)

    def read(v):
        return _up(v.val) if isinstance(v, core.Literal) else values[v]

    for eqn in jaxpr.eqns:
        with eqn.ctx.manager:
            found = _operation(eqn, [read(v) for v in eqn.invars])
        values |= zip(eqn.outvars, found, strict=True)
    return [read(v) for v in jaxpr.outvars]


def _operation(eqn: Any, args: list) -> list:
    name, params = eqn.primitive.name, eqn.params
    if name in INLINE:
        return _closed(params[INLINE[name]])(*args)
    if name in ("remat2", "checkpoint"):
        return jax.checkpoint(_closed(params["jaxpr"]), prevent_cse=False)(*args)
    if name == "custom_jvp_call":
        return _by_rule(_closed(params["call_jaxpr"]), eqn)(*args)
    if name == "cond":
        index, *rest = args
        return lax.switch(index, [_closed(b) for b in params["branches"]], *rest)
    if name == "scan":
        return _scan(eqn, args)
    if name == "while":
        return _while(params, args)
    if name == "reduce_precision":
        return args
    if any(list(programs(p)) for p in params.values()) or "custom_vjp" in name:
        as_were = [_like(x, v.aval) for x, v in zip(args, eqn.invars, strict=True)]
        return [_up(x) for x in _bind(eqn, as_were, params)]
    return _bind(eqn, args, {key: _dtype(p) for key, p in params.items()})


def _bind(eqn: Any, args: list, params: dict) -> list:
    out = eqn.primitive.bind(*args, **eqn.primitive.get_bind_params(params))
    return list(out) if eqn.primitive.multiple_results else [out]


def _closed(program: Any) -> Callable[..., list]:
    jaxpr, consts = getattr(program, "jaxpr", program), getattr(program, "consts", ())
    return lambda *args: _run(jaxpr, consts, args)


def _by_rule(f: Callable, eqn: Any) -> Callable:
    """A custom_jvp, whose rule is a program like any other."""
    wrapped = jax.custom_jvp(f)
    own = partial(_bind, eqn, params=eqn.params)

    @wrapped.defjvp
    def rule(primals, tangents):
        def slope(both):
            low = [_like(x, v.aval) for x, v in zip(both[0], eqn.invars, strict=True)]
            ways = [_like(t, v.aval) for t, v in zip(both[1], eqn.invars, strict=True)]
            return jax.jvp(lambda *xs: own(list(xs)), low, ways)

        return in_f32(slope)((list(primals), list(tangents)))

    return wrapped


def _scan(eqn: Any, args: list) -> list:
    params = eqn.params
    inside = getattr(params["jaxpr"], "jaxpr", params["jaxpr"])

    def whole(outer, inner):  # those that are not scanned over, which come last
        pairs = zip(outer, inner, strict=True)
        return sum(a.aval.ndim == b.aval.ndim for a, b in pairs)

    m = whole(eqn.invars, inside.invars)
    carries = whole(eqn.outvars, inside.outvars)
    n = m - carries
    consts, init, xs = args[:n], args[n:m], args[m:]
    run = _closed(params["jaxpr"])

    def body(carry, x):
        out = run(*consts, *carry, *x)
        return out[:carries], out[carries:]

    options = {key: params[key] for key in ("length", "reverse", "unroll")}
    carry, ys = lax.scan(body, init, xs, **options)
    return [*carry, *ys]


def _while(params: dict, args: list) -> list:
    n, m = params["cond_nconsts"], params["body_nconsts"]
    test, body = _closed(params["cond_jaxpr"]), _closed(params["body_jaxpr"])
    return lax.while_loop(
        lambda c: test(*args[:n], *c)[0],
        lambda c: body(*args[n : n + m], *c),
        args[n + m :],
    )


def _like(x: Any, aval: Any) -> Any:
    low = hasattr(aval, "dtype") and is_low(aval.dtype)
    return jnp.asarray(x, aval.dtype) if low else x


def _dtype(param: Any) -> Any:
    """f32 for a parameter that says bf16."""
    try:
        low = is_low(jnp.dtype(param)) if isinstance(param, type | jnp.dtype) else False
    except TypeError:
        return param
    return jnp.dtype(jnp.float32) if low else param
