"""Checks of schedules: step -> value, traceable in step and hyperparameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.case import Case
from tests.free import common
from tests.free.common import assert_close, assert_finite


def build(case: Case, hyper=None) -> optax.Schedule:
    return case.fn(**case.static, **(dict(case.hyper) if hyper is None else hyper))


def steps(case: Case) -> np.ndarray:
    """The case's own steps, or every step up to a little beyond its largest integer."""
    if case.steps:
        return np.asarray(case.steps, np.int32)
    sizes = [
        x
        for x in jax.tree.leaves((dict(case.static), dict(case.hyper)))
        if isinstance(x, int)
    ]
    return np.arange(max(sizes) + 10, dtype=np.int32)


@functools.cache
def _curve(key: int, case_id: str):
    del case_id
    case = _CASES[key]
    hyper = common.cast_floats(dict(case.hyper), jnp.float32)
    return jax.jit(lambda hyper, t: jax.vmap(build(case, hyper))(t))(hyper, steps(case))


_CASES: dict[int, Case] = {}


def curve(case: Case):
    """The values at `steps`: vmapped, jitted, hyperparameters traced."""
    _CASES[id(case)] = case
    return _curve(id(case), case.id)


def kinds_of_step(case: Case):
    """Python and numpy steps, integer or float: f32 scalars, equal to jit and vmap."""
    schedule, values = build(case), np.asarray(curve(case))
    picks = np.linspace(0, len(values) - 1, 12).astype(int)
    with jax.debug_nans(True), jax.numpy_dtype_promotion("strict"):
        for i in picks:
            step = int(steps(case)[i])
            for kind in (int, float, np.int32, jnp.int32, jnp.float32):
                value = schedule(kind(step))
                assert jnp.shape(value) == ()
                assert jnp.result_type(value) == jnp.float32
                assert_close(value, values[i], what=f"step {kind.__name__}({step})")


def finite(case: Case):
    """Finite values and hyperparameter gradients at every step and far beyond."""
    hyper = common.cast_floats(dict(case.hyper), jnp.float32)
    far = np.concatenate([steps(case), np.array([10**6, 10**9], np.int32)])
    values = jax.jit(jax.vmap(lambda t: build(case, hyper)(t)))(far)
    jacobian = jax.jit(jax.jacrev(lambda h: jax.vmap(build(case, h))(far)))(hyper)
    assert_finite((values, jacobian))


def derivatives(case: Case):
    """The hyperparameters' gradient equals central differences in f64 at every step."""
    with jax.enable_x64(True):
        hyper = common.cast_floats(dict(case.hyper), jnp.float64)
        if case.smooth is not None:
            hyper = {k: v for k, v in hyper.items() if k in case.smooth}
        fixed = {k: v for k, v in case.hyper.items() if k not in hyper}

        @jax.jit
        def values(hyper):
            return jax.vmap(build(case, {**fixed, **hyper}))(steps(case))

        assert values(hyper).dtype == jnp.float64, "f64 hyperparameters must stay f64"
        for name in hyper:
            tangent = {k: jnp.full_like(v, float(k == name)) for k, v in hyper.items()}
            _, slope = jax.jvp(values, (hyper,), (tangent,))
            scale = 1e-6 * max(abs(float(hyper[name])), 1e-3)
            up = values(common.shift(hyper, scale, tangent))
            down = values(common.shift(hyper, -scale, tangent))
            assert_close(slope, (up - down) / (2 * scale), rtol=1e-5, what=name)


def in_optax(case: Case):
    """Drives an optimizer, and joins with others."""
    schedule = build(case)
    tx = optax.sgd(schedule)
    params = {"w": jnp.ones(2)}
    updates, _ = tx.update({"w": jnp.ones(2)}, tx.init(params), params)
    assert_close(updates["w"], jnp.full(2, -schedule(0)))
    joined = optax.join_schedules([optax.constant_schedule(1.0), schedule], [5])
    assert_close(joined(8), schedule(3))


def limits(case: Case):
    """The special cases that the source states: a schedule to equal at every step."""
    for what, expected, changes in case.limits:
        settings = {**case.static, **case.hyper, **changes}
        got = jax.vmap(case.fn(**settings))(steps(case))
        assert_close(got, jax.vmap(expected)(steps(case)), rtol=1e-6, what=what)


def errors(case: Case):
    """Static mistakes raise a ValueError naming the argument."""
    for bad in case.bad:
        settings = {**case.static, **case.hyper, **bad}
        common.raises(lambda s=settings: case.fn(**s)(0), naming=next(iter(bad)))


CHECKS = (kinds_of_step, finite, derivatives, in_optax, limits, errors)
