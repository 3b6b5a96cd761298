"""metagrad.mixed: the same gradient, with a cheaper transpose and any derivative."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxtricks import kernels, metagrad, sharpness
from jaxtricks.metagrad import mixed
from tests.free.common import as_users_see_it, assert_close, mesh, put
from tests.inputs import rng

PARAMS = {
    "w": rng(50).normal(size=(2, 3)).astype(np.float32) / 2,
    "b": rng(51).normal(size=3).astype(np.float32) / 2,
}
X = rng(52).normal(size=(4, 2)).astype(np.float32)


def loss(params, x, scale=1.0):
    hidden = jnp.tanh(x @ params["w"] + params["b"][None])
    return scale * jnp.sum(hidden**2) + jnp.sum(params["w"] ** 3) * jnp.mean(x)


def outer(grad_fn, has_value, params, x):
    result = grad_fn(params, x)
    value, grads = result if has_value else (0.0, result)
    return 3 * value + sum(jnp.sum(jnp.sin(g)) for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("has_value", [False, True])
def test_every_derivative_is_the_plain_one(has_value):
    base = (jax.value_and_grad if has_value else jax.grad)(loss)
    tangent = jax.tree.map(jnp.cos, (PARAMS, X))

    def everything(grad_fn):
        f = functools.partial(outer, grad_fn, has_value)
        both = jax.grad(f, argnums=(0, 1))

        def slope(*args):
            pairs = zip(
                jax.tree.leaves(both(*args)), jax.tree.leaves(tangent), strict=True
            )
            return sum(jnp.vdot(g, t) for g, t in pairs)

        def trained(params, x):
            def step(params, x):
                grads = grad_fn(params, x)
                grads = grads[1] if has_value else grads
                return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), None

            xs = jnp.stack([x, 2 * x, -x])
            return jnp.sum(metagrad.scan(step, params, xs)[0]["w"])

        return {
            "reverse": both(PARAMS, X),
            "forward": jax.jvp(f, (PARAMS, X), tangent),
            "forward over reverse": jax.jvp(both, (PARAMS, X), tangent),
            "reverse over reverse": jax.grad(slope, argnums=(0, 1))(PARAMS, X),
            "vmap": jax.vmap(both, in_axes=(None, 0))(PARAMS, jnp.stack([X, 2 * X])),
            "training": jax.grad(trained, argnums=(0, 1))(PARAMS, X),
            "value": grad_fn(PARAMS, X),
        }

    got = jax.jit(lambda: everything(mixed(base, has_value=has_value)))()
    want = jax.jit(lambda: everything(base))()
    for what in want:
        assert_close(got[what], want[what], rtol=5e-6, what=what)


def test_forms_and_what_is_no_array():
    def with_aux(params, x, *, name, square=None):
        value = loss(params, x) * (2.0 if name == "twice" else 1.0)
        return value, {
            "seen": square(x) @ params["w"],
            "count": 3 * jnp.ones((), int),
            "name": x > 0,
        }

    kwargs = {"name": "twice", "square": jnp.square}
    for has_value in (False, True):
        base = (jax.value_and_grad if has_value else jax.grad)(with_aux, has_aux=True)
        wrapped = mixed(base, has_value=has_value, has_aux=True)

        def f(grad_fn, params, x, has_value=has_value):
            result = grad_fn(params, x, **kwargs)
            value, (grads, aux) = 0.0, result
            if has_value:
                (value, aux), grads = result
            return value + jnp.sum(grads["w"] ** 2) + jnp.sum(jnp.sin(aux["seen"]))

        grads = (
            jax.jit(jax.grad(functools.partial(f, g), (0, 1))) for g in (wrapped, base)
        )
        got, want = (g(PARAMS, X) for g in grads)
        assert_close(got, want, rtol=5e-6)


def test_what_it_closes_over_moves_too():
    index = jnp.array([2, 0])

    def f(wrap, scale, x):
        def step(params, i):
            grad_fn = wrap(jax.grad(lambda p: loss(p, x[i][None], scale)))
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, grad_fn(params)), None

        return jnp.sum(metagrad.scan(step, PARAMS, index)[0]["w"])

    got = jax.jit(jax.grad(functools.partial(f, mixed), (0, 1)))(1.5, X)
    want = jax.jit(jax.grad(functools.partial(f, lambda g: g), (0, 1)))(1.5, X)
    assert_close(got, want, rtol=5e-6)


def test_with_our_own_losses_and_methods():
    """Blockwise cross entropy, SAM and bf16 within the inner steps."""
    hidden = rng(53).normal(size=(6, 4)).astype(np.float32)
    labels = np.array([0, 3, 2, 4, 1, 1])
    params = {"head": rng(54).normal(size=(4, 5)).astype(np.float32)}
    tx = optax.chain(sharpness.sam(0.1), optax.sgd(0.1))

    def token_losses(params, hidden, dtype):
        head = params["head"].astype(dtype)
        return kernels.linear_cross_entropy(hidden.astype(dtype), head, labels)

    def f(wrap, dtype, weights):
        def loss(params, weights):
            return jnp.mean(weights * token_losses(params, hidden, dtype))

        def step(carry, weights):
            params, state = carry
            grad_fn = wrap(jax.value_and_grad(loss), has_value=True)

            def grads_at(params):
                return grad_fn(params, weights)[1]

            grads = grads_at(params)
            updates, state = tx.update(grads, state, params, grad_fn=grads_at)
            return (optax.apply_updates(params, updates), state), None

        (ends, _), _ = metagrad.scan(step, (params, tx.init(params)), weights)
        return jnp.mean(token_losses(ends, hidden, jnp.float32))

    weights = np.ones((2, 6), np.float32)
    for dtype, rtol in ((jnp.bfloat16, 0.03),):
        got = jax.jit(jax.grad(functools.partial(f, mixed, dtype)))(weights)
        plain = functools.partial(f, lambda g, has_value: g, dtype)
        assert_close(got, jax.jit(jax.grad(plain))(weights), rtol=rtol)
        assert got.dtype == jnp.float32
        assert np.all(np.isfinite(got))
        assert np.max(np.abs(got)) > 1e-4


def temporaries(wrap, has_value, policy="none", steps=16):
    """Bytes that the gradient in example weights takes beside its arguments."""

    def net(params, x):
        for w in params:
            x = x + jnp.tanh(x @ w)
        return x

    def weighted(params, x, weights):
        return jnp.mean(weights[:, None] * net(params, x) ** 2)

    def trained(weights, params, x):
        base = (jax.value_and_grad if has_value else jax.grad)(weighted)

        def step(params, weights):
            result = wrap(base)(params, x, weights)
            grads = result[1] if has_value else result
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), None

        return jnp.sum(net(metagrad.scan(step, params, weights, policy=policy)[0], x))

    args = jnp.ones((steps, 64)), [jnp.ones((32, 32))] * 4, jnp.ones((64, 32))
    compiled = jax.jit(jax.grad(trained)).lower(*args).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("has_value", [False, True])
def test_it_stores_no_activations(has_value):
    plain = temporaries(lambda g: g, has_value)
    assert (
        temporaries(functools.partial(mixed, has_value=has_value), has_value)
        < plain / 3
    )


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_on_a_mesh(kind):
    def f(params, x):
        return outer(mixed(jax.grad(loss)), False, params, x)

    want = jax.grad(f, argnums=(0, 1))(PARAMS, X)
    with jax.set_mesh(mesh(kind)):
        params = jax.tree.map(lambda p: put(p, kind), PARAMS)
        got = jax.jit(jax.grad(f, argnums=(0, 1)))(params, put(X, kind, "data"))
    assert_close(got, want, rtol=1e-5)


def test_in_shard_map():
    def local(params, x):
        def mean(params, x):
            return jax.lax.pmean(loss(params, x), "data")

        return mixed(jax.grad(mean))(params, x)

    def f(wrapped, params, x):
        return sum(jnp.sum(jnp.sin(g)) for g in jax.tree.leaves(wrapped(params, x)))

    def plain(params, x):
        parts = x.reshape(4, 1, 2)
        return jax.grad(lambda p: jnp.mean(jax.vmap(loss, (None, 0))(p, parts)))(params)

    with jax.set_mesh(mesh(AxisType.Auto)):
        split = jax.shard_map(local, in_specs=(P(), P("data")), out_specs=P())
        got = jax.jit(jax.grad(functools.partial(f, split), (0, 1)))(PARAMS, X)
    assert_close(got, jax.grad(functools.partial(f, plain), (0, 1))(PARAMS, X), 1e-5)


def test_zero_and_large_gradients_are_finite():
    grads = jax.grad(functools.partial(outer, mixed(jax.grad(loss)), False), (0, 1))
    for scale in (0.0, 1e4):
        params = {k: scale * p for k, p in PARAMS.items()}
        for leaf in jax.tree.leaves(grads(params, X)):
            assert np.all(np.isfinite(leaf))


def test_mistakes():
    for base, keywords, message in (
        (jax.value_and_grad(loss), {}, "grad_fn: wanted gradients of the structure"),
        (
            jax.grad(loss),
            {"has_value": True},
            r"wanted it to return \(value, gradients",
        ),
        (jax.grad(loss), {"has_aux": True}, r"wanted it to return \(gradients, aux"),
        (lambda p, x: (p["b"], p), {"has_value": True}, "wanted a scalar value"),
        (lambda p, x: {"w": x, "b": x}, {}, r"grad_fn's gradients: \['b'\] has shape"),
    ):
        with as_users_see_it(), pytest.raises(ValueError, match=message):
            mixed(base, **keywords)(PARAMS, X)
