"""Bilevel problems: forward is reverse is finite differences is the implicit limit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtricks import optimizers
from jaxtricks.metagrad import (
    finite_difference,
    hypergradient,
    implicit,
    multi_step,
    scan,
    unroll,
)
from tests.free.common import as_users_see_it, assert_close
from tests.inputs import rng

X = rng(70).normal(size=(12, 3)).astype(np.float32)
Y = rng(71).normal(size=12).astype(np.float32)
TX = optimizers.differentiable(optax.adam(0.05))


def loss(w, z, where):
    return jnp.mean(jnp.where(where, (X @ w - Y) ** 2, 0)) + jnp.exp(z["decay"]) * w @ w


TRAIN = np.arange(12) < 8


def step(carry, x, z):
    w, state, count = carry
    grads = jax.grad(loss)(w, z, TRAIN)
    updates, state = TX.update(grads, state, w)
    return (w + z["scale"] * x * updates, state, count + 1), jnp.sum(w)


def outer(carry, z):
    w, _, _ = carry
    return jnp.mean(jnp.where(TRAIN, 0, (X @ w - Y) ** 2)) + 0.1 * jnp.sum(z["scale"])


def problem():
    w = jnp.zeros(3)
    z = {"decay": jnp.float32(-1.0), "scale": jnp.ones(3)}
    return outer, step, (w, TX.init(w), 0), jnp.linspace(0.5, 1.5, 9), z


def test_both_modes_agree_with_finite_differences():
    """Through Adam, with integers in the carry, in a tree of hyperparameters."""

    def all_of_them():
        reverse = hypergradient(*problem())
        forward = hypergradient(*problem(), mode="forward")
        whole = hypergradient(*problem(), window=9, policy="step")
        outer, step, init, xs, z = problem()

        def value(z):
            return outer(scan(lambda c, x: step(c, x, z), init, xs)[0], z)

        return reverse, forward, whole, (value(z), finite_difference(value, z))

    with jax.enable_x64(True):
        reverse, forward, whole, differences = jax.jit(all_of_them)()
    assert_close(forward, reverse, rtol=1e-5)
    assert_close(whole, reverse, rtol=1e-5)
    assert_close(differences, reverse, rtol=5e-3)


def test_unroll_gives_the_derivative_of_every_leaf():
    _, step, init, xs, z = problem()

    def f():
        carry, moved = unroll(step, init, xs, z)
        want = jax.jacfwd(lambda z: scan(lambda c, x: step(c, x, z), init, xs)[0][0])(z)
        return carry, moved, want

    (w, state, count), moved, want = jax.jit(f)()
    assert int(count) == 9
    assert moved[2] is None
    assert moved[0]["scale"].shape == (3, 3)
    assert moved[0]["decay"].shape == (3,)
    assert_close(moved[0], want, rtol=1e-5)
    assert w.shape == (3,)
    assert state is not None


def test_the_limit_of_training_is_the_implicit_gradient():
    """Ridge by gradient descent, T -> inf, and the closed form."""

    def inner(w, decay):
        return jnp.sum((X @ w - Y) ** 2) / 2 + jnp.exp(decay) * w @ w / 2

    def outer(w, decay):
        return jnp.sum(w**2)

    def gd(w, _, decay):
        return w - 0.03 * jax.grad(inner)(w, decay), None

    def train(decay):
        return scan(lambda w, x: gd(w, x, decay), jnp.zeros(3), length=200)[0]

    solved = implicit(train, jax.grad(inner))
    args = outer, gd, jnp.zeros(3), None, jnp.float32(0.5)
    run = lambda: (  # noqa: E731
        hypergradient(*args, length=200)[1],
        hypergradient(*args, length=200, mode="forward")[1],
        jax.grad(lambda z: outer(solved(z), z))(0.5),
    )
    matrix = X.T.astype(np.float64) @ X + np.exp(0.5) * np.eye(3)
    w = np.linalg.solve(matrix, X.T @ Y)
    want = -2 * np.exp(0.5) * w @ np.linalg.solve(matrix, w)
    for found in jax.jit(run)():
        np.testing.assert_allclose(found, want, rtol=1e-4)


def noisy_slopes(weights, keys, steps=4, rate=0.05):
    """Of the mixture's gradient in the rate, on a quadratic with noisy gradients."""

    def one(key):
        noise = 0.5 * jax.random.normal(key, (steps,))

        def step(w, e, rate):
            return w - rate * (w + e), None

        def loss(rate):
            return multi_step(
                lambda w, e, rate: w**2 / 2, step, 1.0, noise, rate, weights=weights
            )

        return jax.grad(loss)(rate)

    return jax.vmap(one)(keys)


def test_mixing_trades_bias_for_variance():
    keys = jax.random.split(jax.random.key(2), 4000)
    horizons = jnp.eye(4)[jnp.array([0, 3])]
    mixes = [horizons[0], horizons[1], jnp.full(4, 0.25)]
    first, last, even = jax.jit(lambda: [noisy_slopes(v, keys) for v in mixes])()
    assert jnp.var(even) < jnp.var(last)
    target = jnp.mean(last)  # what the longest horizon says on average
    assert abs(jnp.mean(even) - target) < abs(jnp.mean(first) - target)


def test_a_representation_is_learned_across_tasks():
    """Its last layer is trained from zero on each task's support; the query judges."""
    r = rng(72)
    truth = r.normal(size=(6, 2)) / 2
    x = r.normal(size=(2, 8, 5, 6))  # support and query, 8 tasks of 5 examples
    heads = r.normal(size=(8, 2))
    y = np.einsum("stni,ij,tj->stn", x, truth, heads)
    tasks = jax.tree.map(np.float32, ((x[0], y[0]), (x[1], y[1])))
    start = np.float32(r.normal(size=(6, 2)) / 2)
    tx = optax.adam(0.03)

    def of_task(shared, support, query):
        def error(w, shared, data):
            return jnp.mean((data[0] @ shared @ w - data[1]) ** 2)

        def step(w, _, shared):
            return w - 0.1 * jax.grad(error)(w, shared, support), None

        objective = lambda w, shared: error(w, shared, query)  # noqa: E731
        args = objective, step, jnp.zeros(2), None, shared
        return hypergradient(*args, length=10, policy="step")

    def meta(carry, _):
        shared, state = carry
        found = jax.vmap(of_task, (None, 0, 0))(shared, *tasks)
        value, grads = jax.tree.map(lambda g: g.mean(0), found)
        updates, state = tx.update(grads, state, shared)
        return (optax.apply_updates(shared, updates), state), value

    run = jax.jit(lambda: jax.lax.scan(meta, (start, tx.init(start)), length=200)[1])
    values = run()
    assert values[-1] < values[0] / 4


def test_mistakes():
    for call, message in (
        (
            lambda: hypergradient(*problem(), mode="both"),
            "mode: wanted one of 'reverse'",
        ),
        (
            lambda: hypergradient(*problem(), mode="forward", window=2),
            "window: wanted No",
        ),
        (
            lambda: unroll(step, *problem()[2:4], {"n": 3}),
            r"wrt: wanted floats, came int",
        ),
        (
            lambda: hypergradient(*problem()[:4], {"n": 3}),
            r"wrt: wanted floats, came int32 at \['n'\]",
        ),
        (
            lambda: multi_step(
                lambda w, x, z: w,
                lambda w, x, z: (w, x),
                0.0,
                jnp.ones(2),
                0.0,
                weights=jnp.ones(3),
            ),
            r"weights: wanted shape \(2,\), came \(3,\)",
        ),
    ):
        with as_users_see_it(), pytest.raises(ValueError, match=message):
            call()
