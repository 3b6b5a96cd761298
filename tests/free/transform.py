"""Checks of gradient transformations that ask for a second gradient (`grad_fn`).

The problem is a small two-layer network whose loss is smooth and far from quadratic, so
that every hyperparameter matters. `train` runs three steps; most checks compare ways of
running it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtricks import sharpness
from tests.case import Case
from tests.free import common
from tests.free.common import assert_close, assert_finite


def make_params(dtype=jnp.float32):
    rng = np.random.default_rng(11)
    return {
        "hidden": {"w": jnp.asarray(rng.normal(size=(3, 4)), dtype)},
        "out": {
            "w": jnp.asarray(rng.normal(size=(4, 2)), dtype),
            "b": jnp.asarray(rng.normal(size=(2,)), dtype),
        },
    }


def make_batch(dtype=jnp.float32):
    rng = np.random.default_rng(12)
    x, y = rng.normal(size=(16, 3)), rng.normal(size=(16, 2))
    return jnp.asarray(x, dtype), jnp.asarray(y, dtype)


def loss_fn(params, batch):
    x, y = batch
    hidden = jnp.tanh(x @ params["hidden"]["w"])
    error = hidden @ params["out"]["w"] + params["out"]["b"][None] - y
    return jnp.mean(jnp.square(error)) + 0.1 * jnp.mean(error**4)


def grad_fn(batch):
    return lambda params: jax.grad(loss_fn)(params, batch)


def build(case: Case, hyper=None) -> optax.GradientTransformationExtraArgs:
    return case.fn(**case.static, **(dict(case.hyper) if hyper is None else hyper))


def train(case: Case, params, batch, hyper=None, grad=grad_fn, base=None):
    """Three steps under lax.scan, which also asserts that the state stays alike."""
    tx = optax.chain(build(case, hyper), base or optax.sgd(0.1, momentum=0.9))
    fn = grad(batch)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(fn(params), state, params, grad_fn=fn)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=3)
    return params


@functools.cache
def _reference(key: int, case_id: str):
    del case_id
    case = _CASES[key]
    hyper = common.cast_floats(dict(case.hyper), jnp.float32)
    return jax.jit(functools.partial(train, case))(make_params(), make_batch(), hyper)


_CASES: dict[int, Case] = {}


def reference(case: Case):
    """The parameters after three steps on one device, hyperparameters traced."""
    _CASES[id(case)] = case
    return _reference(id(case), case.id)


def one_step(tx, params, fn, **extra):
    state = tx.init(params)
    updates, _ = tx.update(fn(params), state, params, grad_fn=fn, **extra)
    return updates


# --- the checks ------------------------------------------------------------------


def jit_equals_eager(case: Case):
    """Python hyperparameters, no jit, strict promotion, NaN alarms on."""
    with jax.debug_nans(True), jax.numpy_dtype_promotion("strict"):
        tx = optax.chain(build(case), optax.trace(0.9), optax.scale(-0.1))
        params, fn = make_params(), grad_fn(make_batch())
        state = tx.init(params)
        for _ in range(3):
            updates, state = tx.update(fn(params), state, params, grad_fn=fn)
            params = optax.apply_updates(params, updates)
    assert_close(params, reference(case), rtol=1e-5)


def extra_arguments(case: Case):
    """A chain hands everybody's arguments to everybody."""
    tx = optax.chain(build(case), optax.sgd(0.1), optax.contrib.reduce_on_plateau())
    fn, params = grad_fn(make_batch()), make_params()
    updates = one_step(tx, params, fn, value=loss_fn(params, make_batch()))
    assert_close(
        updates, one_step(optax.chain(build(case), optax.sgd(0.1)), params, fn)
    )


def accumulation(case: Case):
    """In MultiSteps, a grad_fn over the accumulated batch gives the big-batch step."""
    big = make_batch()
    halves = [jax.tree.map(lambda x, s=s: x[s], big) for s in (slice(8), slice(8, 16))]
    tx = optax.MultiSteps(optax.chain(build(case), optax.sgd(0.1)), every_k_schedule=2)
    params, fn = make_params(), grad_fn(big)
    state = tx.init(params)
    for half in halves:
        updates, state = tx.update(grad_fn(half)(params), state, params, grad_fn=fn)
    want = one_step(optax.chain(build(case), optax.sgd(0.1)), params, fn)
    assert_close(updates, want, rtol=1e-5)


def masked_and_partition(case: Case):
    """masked and partition work through `sharpness.complete`, or say so."""
    params, fn = make_params(), grad_fn(make_batch())
    mask = {"hidden": True, "out": False}
    labels = {"hidden": "trick", "out": "plain"}
    completed = sharpness.complete(fn, params)

    def only_hidden(hidden):
        return {"hidden": fn({**params, "hidden": hidden})["hidden"]}

    tx = build(case)
    state = tx.init({"hidden": params["hidden"]})
    want, _ = tx.update(
        {"hidden": fn(params)["hidden"]},
        state,
        {"hidden": params["hidden"]},
        grad_fn=lambda tree: only_hidden(tree["hidden"]),
    )
    for wrapped in (
        optax.masked(build(case), mask),
        optax.partition({"trick": build(case), "plain": optax.identity()}, labels),
    ):
        state = wrapped.init(params)
        updates, _ = wrapped.update(fn(params), state, params, grad_fn=completed)
        assert_close(updates["hidden"], want["hidden"], what="the masked part")
        assert_close(updates["out"], fn(params)["out"], what="the rest")
        common.raises(
            lambda w=wrapped, s=state: w.update(fn(params), s, params, grad_fn=fn),
            naming="complete",
        )


def zero_gradient(case: Case):
    """At a flat point: finite updates, and finite meta-gradients through them."""
    params = make_params()

    def flat(params):  # exactly zero gradient, and not a constant
        return sum(
            jnp.sum((x - jax.lax.stop_gradient(x)) ** 4)
            for x in jax.tree.leaves(params)
        )

    def after(params, hyper):
        trained = train(
            case, params, make_batch(), hyper, grad=lambda _: jax.grad(flat)
        )
        return sum(jnp.sum(x) for x in jax.tree.leaves(trained))

    hyper = common.cast_floats(dict(case.hyper), jnp.float32)
    value, grads = jax.jit(jax.value_and_grad(after, argnums=(0, 1)))(params, hyper)
    assert_finite((value, grads))


def meta_gradient(case: Case):
    """The gradient through three steps, in parameters and hyperparameters, f64."""
    with jax.enable_x64(True):
        params, batch = make_params(jnp.float64), make_batch(jnp.float64)
        hyper = common.cast_floats(dict(case.hyper), jnp.float64)
        if case.smooth is not None:
            hyper = {k: v for k, v in hyper.items() if k in case.smooth}

        @jax.jit
        def objective(params, hyper):
            everything = {**case.hyper, **hyper}
            return loss_fn(train(case, params, batch, everything), batch)

        tangent = common.direction((params, hyper), seed=3)
        grads = jax.jit(jax.grad(objective, argnums=(0, 1)))(params, hyper)
        up = objective(*common.shift((params, hyper), 1e-6, tangent))
        down = objective(*common.shift((params, hyper), -1e-6, tangent))
        assert_close(common.inner(grads, tangent), (up - down) / 2e-6, rtol=1e-5)


def dtypes(case: Case):
    """bf16 parameters get bf16 updates, near the f32 ones."""
    low = make_params(jnp.bfloat16)
    fn = grad_fn(make_batch(jnp.bfloat16))
    updates = one_step(build(case), low, fn)
    assert all(u.dtype == jnp.bfloat16 for u in jax.tree.leaves(updates))
    want = one_step(
        build(case), common.cast_floats(low, jnp.float32), grad_fn(make_batch())
    )
    assert_close(updates, want, rtol=0.1)


def hyperparameters_vmap(case: Case):
    """Several settings at once equal one after the other."""
    if not case.hyper:
        return
    scales = jnp.array([0.5, 1.0])
    hyper = {k: scales * v for k, v in case.hyper.items()}
    run = functools.partial(train, case, make_params(), make_batch())
    out = jax.jit(jax.vmap(run))(hyper)
    assert_close(jax.tree.map(lambda x: x[1], out), reference(case), rtol=1e-5)


def meshes(case: Case):
    """A batch sharded over an Auto or an Explicit mesh gives the one-device result."""
    hyper = common.cast_floats(dict(case.hyper), jnp.float32)
    for kind in (AxisType.Auto, AxisType.Explicit):
        batch = tuple(common.put(x, kind, "data") for x in make_batch())
        replicated = NamedSharding(common.mesh(kind), P())
        with jax.set_mesh(common.mesh(kind)):
            params = jax.device_put(make_params(), replicated)
            out = jax.jit(functools.partial(train, case))(params, batch, hyper)
        assert_close(out, reference(case), rtol=1e-5, what=str(kind))


def collectives(case: Case):
    """shard_map and pmap with a grad_fn that averages over devices."""

    def mean_grad(batch):
        def fn(params):
            varying = jax.tree.map(
                lambda p: jax.lax.pcast(p, "data", to="varying"), params
            )
            return jax.lax.pmean(jax.grad(loss_fn)(varying, batch), "data")

        return fn

    run = functools.partial(train, case, grad=mean_grad)
    mesh = common.mesh(AxisType.Auto)
    mapped = jax.shard_map(run, mesh=mesh, in_specs=(P(), P("data")), out_specs=P())
    assert_close(
        jax.jit(mapped)(make_params(), make_batch()),
        reference(case),
        rtol=1e-5,
        what="shard_map",
    )
    split = jax.tree.map(lambda x: x.reshape(8, 2, *x.shape[1:]), make_batch())
    out = jax.pmap(run, "data", in_axes=(None, 0))(make_params(), split)
    first = jax.tree.map(lambda x: x[0], out)
    assert_close(first, reference(case), rtol=1e-5, what="pmap")


def limits(case: Case):
    """The easy special cases that the source states: a base transformation to equal."""
    for what, expected, hyper in case.limits:
        got = train(case, make_params(), make_batch(), {**case.hyper, **hyper})
        plain = Case(functools.partial(_same, expected), kind="transform")
        want = train(plain, make_params(), make_batch())
        assert_close(got, want, rtol=1e-6, what=what)


def _same(transformation):
    return transformation


def errors(case: Case):
    """Static mistakes raise a ValueError naming the argument."""
    params, fn = make_params(), grad_fn(make_batch())
    tx = build(case)
    state = tx.init(params)
    common.raises(lambda: tx.update(fn(params), state, params), naming="grad_fn")
    common.raises(lambda: tx.update(fn(params), state, grad_fn=fn), naming="params")
    for bad in case.bad:
        settings = {**case.static, **case.hyper, **bad}
        with common.as_users_see_it():
            common.raises(
                lambda s=settings: one_step(case.fn(**s), params, fn),
                naming=next(iter(bad)),
            )


CHECKS = (
    jit_equals_eager,
    extra_arguments,
    accumulation,
    masked_and_partition,
    zero_gradient,
    meta_gradient,
    dtypes,
    hyperparameters_vmap,
    meshes,
    collectives,
    limits,
    errors,
)
