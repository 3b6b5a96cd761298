"""Models that take to a new task in closed form, or from a learned start."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtricks.metagrad import (
    camel_adapt,
    camel_head,
    init_siren,
    inner_adapt,
    iteration_count,
    maml,
    siren,
)
from tests.free.common import as_users_see_it, assert_close, assert_finite
from tests.inputs import rng

V = rng(101).normal(size=(6, 3))
CODE, OFFSET = np.array([0.5, -2.0, 3.0]), rng(102).normal(size=6)


def test_adaptation_to_what_is_affine_is_exact():
    adapt = jax.jit(camel_adapt)
    with jax.enable_x64(True):
        y = camel_head(V, CODE, OFFSET)
        for where in (None, np.array([True] * 4 + [False] * 2)):
            spoilt = y if where is None else jnp.where(where, y, jnp.nan)
            found = adapt(V, spoilt, OFFSET, where=where)
            np.testing.assert_allclose(found, CODE, rtol=1e-10)
        # Several outputs: v is [*batch, out, r].
        wide = adapt(V.reshape(3, 2, 3), y.reshape(3, 2), OFFSET.reshape(3, 2))
        np.testing.assert_allclose(wide, CODE, rtol=1e-10)
        small = adapt(V, y, OFFSET, ridge=1e6)
        assert np.abs(small).max() < 1e-4
        few = adapt(V[:2], y[:2], OFFSET[:2], ridge=0.1)  # fewer rows than r
        assert_finite(few)
        f = jax.jit(lambda v, y, ridge: jnp.sum(camel_adapt(v, y, ridge=ridge) ** 2))
        slopes = jax.jit(jax.grad(f, argnums=(0, 1, 2)))
        grads = slopes(V, y, 0.5)
        along = jax.tree.map(np.ones_like, (V, np.asarray(y), 0.5))
        up, down = (
            f(*jax.tree.map(lambda a, d, s=s: a + s * 1e-6 * d, (V, y, 0.5), along))
            for s in (1, -1)
        )
        slope = sum(np.sum(g) for g in grads)
        np.testing.assert_allclose(slope, (up - down) / 2e-6, rtol=1e-6)
        assert_finite(slopes(V, y, 0.0))


def test_an_environment_each():
    codes = np.stack([CODE, -CODE])
    both = camel_head(np.stack([V, V]), codes)
    np.testing.assert_allclose(both[0], -both[1], rtol=1e-6)
    np.testing.assert_allclose(both[0], V @ CODE, rtol=1e-5)


# --- learned initialisations ----------------------------------------------------------


def test_a_sirens_layers_are_spread_alike():
    net = init_siren(key=jax.random.key(0), inputs=1, outputs=1, hidden=256, layers=5)
    x = jnp.linspace(-1, 1, 400)[:, None]
    for depth in (2, 3, 4):  # before the sine: deviation 1 of weights, 1.1 of biases
        assert 1.1 < float(jnp.std(30 * siren(net[:depth], x))) < 1.9
    assert float(jnp.max(jnp.abs(net[0][0]))) <= 1


def test_a_learned_start_fits_a_new_wave_in_two_steps():
    x = jnp.linspace(-1, 1, 32)[:, None]

    def wave(key):
        phase = jax.random.uniform(key, maxval=1.0)
        return jnp.sin(3 * x + phase)

    def loss(params, y):
        return jnp.mean((siren(params, x, omega=10.0) - y) ** 2)

    settings = {"rate": 0.02, "steps": 2}
    first = init_siren(
        key=jax.random.key(1), inputs=1, outputs=1, hidden=16, layers=3, omega=10.0
    )
    tx = optax.adam(3e-3)

    @jax.jit
    def learn(params):
        def step(carry, key):
            params, state = carry
            y = jax.vmap(wave)(jax.random.split(key, 4))
            f = functools.partial(maml, policy="none", **settings)
            grads = jax.grad(lambda p: f(loss, p, (y, y)))(params)
            updates, state = tx.update(grads, state)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(jax.random.key(2), 300)
        return jax.lax.scan(step, (params, tx.init(params)), keys)[0][0]

    @jax.jit
    def reached(params):
        y = jax.vmap(wave)(jax.random.split(jax.random.key(3), 8))
        ends = jax.vmap(lambda y: loss(inner_adapt(loss, params, y, **settings), y))(y)
        return -10 * jnp.log10(jnp.mean(ends))  # decibels

    assert reached(learn(first)) > reached(first) + 10


# --- how long a solver takes ----------------------------------------------------------


def test_a_learned_relaxation_is_the_optimal_one():
    """SOR on -u'' = 1: the count's least factor is near 2 / (1 + sin(pi h))."""
    n, steps = 7, 40
    best = 2 / (1 + np.sin(np.pi / (n + 1)))

    def residuals(factor):
        def sweep(u, _):
            for i in range(n):  # Gauss-Seidel, over-relaxed
                left = u[i - 1] if i else 0.0
                right = u[i + 1] if i + 1 < n else 0.0
                u = u.at[i].add(factor * ((left + right + 1) / 2 - u[i]))
            padded = jnp.pad(u, 1)
            wrong = 1 - (2 * u - padded[:-2] - padded[2:])
            return u, jnp.linalg.norm(wrong)

        return jax.lax.scan(sweep, jnp.zeros(n), length=steps)[1]

    def count(factor, sharpness):
        logs = jnp.log10(residuals(factor))
        return iteration_count(logs, tolerance=-5.0, sharpness=sharpness)

    factors = jnp.linspace(1.0, 1.9, 46)
    counts = jax.jit(jax.vmap(functools.partial(count, sharpness=20.0)))(factors)
    assert abs(float(factors[jnp.argmin(counts)]) - best) < 0.1
    exact = jax.jit(lambda f: jnp.sum(jnp.log10(residuals(f)) > -5.0))(1.5)
    np.testing.assert_allclose(jax.jit(count)(1.5, 1e4), exact, atol=0.51)
    slopes = jax.jit(jax.vmap(jax.grad(functools.partial(count, sharpness=2.0))))
    found = slopes(jnp.array([1.05, 1.8]))
    assert found[0] < 0 < found[1]


def test_mistakes():
    key = jax.random.key(0)
    for call, message in (
        (lambda: camel_adapt(V, OFFSET[:5]), r"targets: wanted shape \(6,\)"),
        (lambda: camel_adapt(V, OFFSET, ridge=-1), "ridge: wanted >= 0, came -1"),
        (lambda: camel_head(V, CODE, OFFSET[:5]), r"offset: wanted shape \(6,\)"),
        (
            lambda: init_siren(key=key, inputs=1, outputs=1, layers=1),
            "layers: wanted >= 2, came 1",
        ),
        (
            lambda: init_siren(key=key, inputs=0, outputs=1),
            "inputs: wanted >= 1, came 0",
        ),
        (lambda: siren([], V, omega=0), "omega: wanted > 0, came 0"),
    ):
        with as_users_see_it(), pytest.raises(ValueError, match=message):
            call()
    assert_close(camel_head(V, CODE), V @ CODE, rtol=1e-5)
