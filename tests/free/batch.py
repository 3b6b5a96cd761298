"""Checks of tricks that give one number an example: losses, weightings, fused kernels.

One function, `everything`, gives value, gradient and HVP in every float datum and every
hyperparameter, all traced. It is compiled once a case at a batch of 8; most checks only
feed it other numbers of the same shapes.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from tests.case import Case
from tests.free import common
from tests.free.common import assert_close, assert_finite, assert_no_nan

LIVE = np.array([True, False, True, True, False, True, False, True])
ALL = np.ones(8, bool)


# --- one case, compiled once -----------------------------------------------------


def apply(case: Case, data, where, hyper, **extra):
    """The trick on its data: [*batch]."""
    kwargs = {**case.static, **hyper, "where": where, **extra}
    if case.call is not None:
        return case.call(case.fn, data, kwargs)
    return case.fn(*data, **kwargs)


def merge_floats(data, floats):
    """The data with its float arrays replaced."""
    floats = iter(floats)
    return tuple(next(floats) if common.is_float(x) else x for x in data)


def floats_of(data):
    return tuple(x for x in data if common.is_float(x))


def gradients(case: Case, data, where, hyper, **extra):
    """Value and gradient of a generic combination of the results."""

    def objective(floats, hyper):
        out = apply(case, merge_floats(data, floats), where, hyper, **extra)
        weights = 1 + jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape)
        return jnp.sum(weights * out), out

    floats = floats_of(data)
    (total, out), grads = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)(
        floats, hyper
    )
    return total, out, grads


def everything(case: Case, data, where, hyper, tangent):
    """(sum, value), gradient and Hessian-vector product."""

    def f(floats, hyper):
        total, out, grads = gradients(case, merge_floats(data, floats), where, hyper)
        return grads, (total, out)

    primal = (floats_of(data), hyper)
    grads, hvp, (total, out) = jax.jvp(f, primal, tangent, has_aux=True)
    return total, out, grads, hvp


class Probe:
    """A case with `everything` compiled, and its result on the plain data."""

    def __init__(self, case: Case):
        self.case = case
        self.data = case.inputs.make((8,))
        self.hyper = common.cast_floats(dict(case.hyper), jnp.float32)
        self.everything = jax.jit(functools.partial(everything, case))
        self.total, self.out, self.grads, self.hvp = self(self.data, ALL)

    def __call__(self, data, where):
        tangent = common.direction((floats_of(data), self.hyper))
        return self.everything(data, where, self.hyper, tangent)


@functools.cache
def _probe(key: int, case_id: str) -> Probe:
    del case_id
    return Probe(_CASES[key])


_CASES: dict[int, Case] = {}


def probe(case: Case) -> Probe:
    _CASES[id(case)] = case
    return _probe(id(case), case.id)


def map_batched(case: Case, f, data):
    """f on the data that have the batch in front."""
    return tuple(
        f(x) if batched else x
        for x, batched in zip(data, case.inputs.batched, strict=True)
    )


# --- the checks ------------------------------------------------------------------


def jit_equals_eager(case: Case):
    """Python hyperparameters, numpy data, no jit, strict promotion, NaN alarms on.

    The gradient is only traced, as its operations alone take long to compile.
    """
    p = probe(case)

    def total(floats):
        data = merge_floats(p.data, floats)
        return jnp.sum(apply(case, data, None, case.hyper))

    with jax.debug_nans(True), jax.numpy_dtype_promotion("strict"):
        out = apply(case, p.data, None, case.hyper)
        jax.eval_shape(jax.grad(total), floats_of(p.data))
    assert out.dtype == jnp.float32
    assert_close(out, p.out, what="jit, traced hyperparameters and where=all True")


def shapes(case: Case):
    """f32[*batch] for an unbatched example, one, none, and two batch axes."""
    hyper = probe(case).hyper
    for batch in ((), (2, 4)):
        data, where = case.inputs.make(batch), np.ones(batch, bool)
        out = jax.eval_shape(functools.partial(apply, case), data, where, hyper)
        assert (out.shape, out.dtype) == (batch, jnp.float32)
    for batch in ((1,), (0,)):
        data, where = case.inputs.make(batch), np.ones(batch, bool)
        f = jax.jit(functools.partial(gradients, case))
        _, out, grads = f(data, where, hyper)
        assert (out.shape, out.dtype) == (batch, jnp.float32)
        assert_finite((out, grads), f"batch {batch}")


def batch_axes_are_independent(case: Case):
    """vmap equals the batch (uncoupled), or a loop over batches (coupled)."""
    p = probe(case)
    axes = tuple(0 if b else None for b in case.inputs.batched)
    f = jax.jit(lambda data, where: apply(case, data, where, p.hyper))
    mapped = jax.jit(jax.vmap(f, in_axes=(axes, 0)))
    if not case.coupled:
        assert_close(mapped(p.data, LIVE), f(p.data, LIVE), what="vmap over examples")
        square = map_batched(case, lambda x: x.reshape(2, 4, *x.shape[1:]), p.data)
        out = f(square, LIVE.reshape(2, 4))
        assert_close(out.reshape(8), f(p.data, LIVE), what="two batch axes")
        return
    other = map_batched(case, lambda x: x[::-1], p.data)
    stacked = tuple(
        np.stack([x, y]) if batched else x
        for x, y, batched in zip(p.data, other, case.inputs.batched, strict=True)
    )
    out = mapped(stacked, np.stack([LIVE, ALL]))
    assert_close(out[0], f(p.data, LIVE), what="vmap over batches")
    assert_close(out[1], f(other, ALL), what="vmap over batches")


def permutation(case: Case):
    """The order of examples does not matter."""
    if case.ordered:
        return
    p = probe(case)
    order = np.random.default_rng(5).permutation(8)
    _, out, _, _ = p(map_batched(case, lambda x: x[order], p.data), ALL)
    assert_close(out, np.asarray(p.out)[order], rtol=5e-6)


def edges(case: Case):
    """Finite value, gradient and HVP on every hard input."""
    p = probe(case)
    for name, data in case.inputs.edges().items():
        _, out, grads, hvp = p(data, ALL)
        if name in case.infinite:
            assert_no_nan((out, grads, hvp), name)
        else:
            assert_finite(out, f"{name}: value")
            assert_finite(grads, f"{name}: gradient")
            assert_finite(hvp, f"{name}: HVP")


def derivatives(case: Case):
    """Gradient and HVP equal central differences in f64, where the case says smooth."""
    with jax.enable_x64(True):
        data = common.cast_floats(case.inputs.make((8,)), jnp.float64)
        hyper = common.cast_floats(dict(case.hyper), jnp.float64)
        tangent = _smooth_tangent(case, data, hyper)
        if not any(np.any(t) for t in jax.tree.leaves(tangent)):
            assert case.smooth == (), "nothing smooth must be said by smooth=()"
            return
        f = jax.jit(functools.partial(everything, case))
        _, out, grads, hvp = f(data, ALL, hyper, tangent)
        assert out.dtype == jnp.float64, "f64 must stay f64"
        results = []
        for step in (1e-5, -1e-5):
            floats, moved = common.shift((floats_of(data), hyper), step, tangent)
            results.append(f(merge_floats(data, floats), ALL, moved, tangent))
        (up, _, grads_up, _), (down, _, grads_down, _) = results
        slope = (up - down) / 2e-5
        assert_close(common.inner(grads, tangent), slope, rtol=1e-6, what="gradient")
        curvature = (
            common.inner(grads_up, tangent) - common.inner(grads_down, tangent)
        ) / 2e-5
        scale = 1e-6 * (1 + abs(slope))
        assert abs(common.inner(hvp, tangent) - curvature) <= scale + 1e-5 * abs(
            curvature
        ), "HVP"


def _smooth_tangent(case: Case, data, hyper):
    """A generic direction in the smooth arguments, zero in the others."""
    floats, names = common.direction((floats_of(data), hyper), seed=7)
    if case.smooth is None:
        return floats, names
    indices = [i for i, x in enumerate(data) if common.is_float(x)]
    floats = tuple(t * (i in case.smooth) for i, t in zip(indices, floats, strict=True))
    return floats, {name: t * (name in case.smooth) for name, t in names.items()}


def bf16(case: Case):
    """bf16 data give f32 results, those of the same numbers in f32."""
    p = probe(case)
    low = common.cast_floats(p.data, jnp.bfloat16)
    f = jax.jit(functools.partial(gradients, case))
    _, out, (grads, _) = f(low, ALL, p.hyper)
    _, want, _, _ = p(common.cast_floats(low, jnp.float32), ALL)
    assert out.dtype == jnp.float32
    assert all(g.dtype == jnp.bfloat16 for g in grads)
    assert_close(out, want, rtol=case.bf16_rtol)
    assert_finite(grads)


def masked(case: Case):
    """What `where` rules out is 0, has no gradient, and may hold NaN and bad labels."""
    p = probe(case)
    _, out, grads, hvp = p(_spoil(case, p.data, ~LIVE), LIVE)
    assert (np.asarray(out)[~LIVE] == 0).all()
    assert_finite((out, grads, hvp))
    for x, g in zip(
        _batched_floats(case, p.data),
        _batched_floats(case, grads[0], p.data),
        strict=True,
    ):
        assert g.shape == x.shape
        assert (np.asarray(g)[~LIVE] == 0).all(), "gradient under the mask"
    subset = map_batched(case, lambda x: x[LIVE], p.data)
    want = apply(case, subset, None, case.hyper) if case.coupled else p.out[LIVE]
    assert_close(np.asarray(out)[LIVE], want, what="the live examples alone")


def all_masked(case: Case):
    """An empty batch of live examples: exact zeros, finite derivatives."""
    p = probe(case)
    _, out, grads, hvp = p(_spoil(case, p.data, ALL), ~ALL)
    assert (np.asarray(out) == 0).all()
    assert_finite((grads, hvp))


def _spoil(case: Case, data, where):
    """NaN in float data and -1 in integer data where told."""

    def spoil(x):
        x = np.array(x)
        x[where] = np.nan if common.is_float(x) else -1
        return x

    return map_batched(case, spoil, data)


def _batched_floats(case: Case, floats, data=None):
    """The float arrays with the batch in front, out of data or of gradients."""
    data = floats if data is None else data
    flags = [
        b for x, b in zip(data, case.inputs.batched, strict=True) if common.is_float(x)
    ]
    floats = [x for x in floats if common.is_float(x)]
    return [x for x, b in zip(floats, flags, strict=True) if b]


def labels_out_of_range(case: Case):
    """NaN, never a neighbour's loss."""
    if case.inputs.labels is None:
        return
    p = probe(case)
    labels = np.array(p.data[case.inputs.labels])
    labels[0], labels[1] = -1, 10_000
    data = list(p.data)
    data[case.inputs.labels] = labels
    _, out, _, _ = p(tuple(data), ALL)
    assert np.isnan(out[:2]).all()
    if not case.coupled:
        assert_close(out[2:], p.out[2:])


def meshes(case: Case):
    """An Auto mesh, an Explicit mesh (classes sharded too) and one device agree."""
    p = probe(case)
    _, want, want_grads, _ = p(p.data, LIVE)
    plain = ((),) * len(p.data)
    inner = case.inputs.sharded or plain
    kinds = {(AxisType.Explicit, inner), (AxisType.Explicit, plain)}
    # What is neither coupled nor a primitive of ours is XLA's to split.
    if case.coupled or case.id.startswith("kernels."):
        kinds |= {(AxisType.Auto, inner)}
    for kind, axes in kinds:
        data = tuple(
            common.put(x, kind, *(("data",) if batched else ()), *spec)
            for x, batched, spec in zip(p.data, case.inputs.batched, axes, strict=True)
        )
        with jax.set_mesh(common.mesh(kind)):
            where = common.put(LIVE, kind, "data")
            f = jax.jit(functools.partial(gradients, case))
            _, out, grads = f(data, where, p.hyper)
        what = f"{kind} {axes}"
        assert_close(out, want, rtol=5e-6, what=what)
        assert_close(grads, want_grads, rtol=2e-5, what=f"{what} gradient")


def collectives(case: Case):
    """shard_map, pmap and vmap(axis_name): a coupled trick sees the whole batch."""
    if not case.coupled:
        return
    p = probe(case)
    _, want, (want_grads, _), _ = p(p.data, LIVE)

    def local(data, where):
        def objective(floats):
            out = apply(
                case, merge_floats(data, floats), where, p.hyper, axis_name="data"
            )
            start = jax.lax.axis_index("data") * out.shape[0]
            weights = 1 + jnp.cos((start + jnp.arange(out.shape[0])).astype(out.dtype))
            return jnp.sum(weights * out), out

        grads, out = jax.grad(objective, has_aux=True)(floats_of(data))
        return out, grads

    specs = tuple(P("data") if b else P() for b in case.inputs.batched)
    out, grads = jax.jit(
        jax.shard_map(
            local,
            mesh=common.mesh(AxisType.Auto),
            in_specs=(specs, P("data")),
            out_specs=(P("data"), floats_of_specs(p.data, specs)),
        )
    )(p.data, LIVE)
    assert_close(out, want, rtol=5e-6, what="shard_map")
    assert_close(grads, want_grads, rtol=2e-5, what="shard_map gradient")

    split = map_batched(case, lambda x: x.reshape(8, 1, *x.shape[1:]), p.data)
    axes = tuple(0 if b else None for b in case.inputs.batched)
    out, grads = jax.pmap(local, "data", in_axes=(axes, 0))(split, LIVE.reshape(8, 1))
    assert_close(out.reshape(8), want, rtol=5e-6, what="pmap")
    batched = _batched_floats(case, want_grads, p.data)
    got = [
        g.reshape(w.shape)
        for g, w in zip(_batched_floats(case, grads, p.data), batched, strict=True)
    ]
    assert_close(got, batched, rtol=2e-5, what="pmap gradient")

    split = map_batched(case, lambda x: x.reshape(4, 2, *x.shape[1:]), p.data)
    mapped = jax.vmap(local, in_axes=(axes, 0), axis_name="data")
    out, _ = jax.jit(mapped)(split, LIVE.reshape(4, 2))
    assert_close(out.reshape(8), want, rtol=5e-6, what="vmap(axis_name)")


def floats_of_specs(data, specs):
    return tuple(s for x, s in zip(data, specs, strict=True) if common.is_float(x))


def limits(case: Case):
    """The easy special cases that the source states."""
    p = probe(case)
    for what, expected, hyper in case.limits:
        got = apply(case, p.data, None, {**case.hyper, **hyper})
        assert_close(got, expected(*p.data), rtol=1e-5, what=what)


def errors(case: Case):
    """Static mistakes raise a ValueError naming the argument."""
    p = probe(case)
    for bad in case.bad:
        changed = dataclasses.replace(case, static={**case.static, **bad})
        hyper = {k: v for k, v in case.hyper.items() if k not in bad}
        common.raises(apply, changed, p.data, None, hyper, naming=next(iter(bad)))
    common.raises(lambda: apply(case, p.data, ALL[:3], case.hyper), naming="where")


CHECKS = (
    jit_equals_eager,
    shapes,
    batch_axes_are_independent,
    permutation,
    edges,
    derivatives,
    bf16,
    masked,
    all_masked,
    labels_out_of_range,
    meshes,
    collectives,
    limits,
    errors,
)
