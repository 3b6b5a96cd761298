"""es, pes and finite_difference: gradients from values, on average and to the digit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks.metagrad import es, finite_difference, pes, scan
from tests.free.common import as_users_see_it, assert_close


def within(estimates, want, deviations=4.5):
    """The mean of many estimates lies within so many standard errors."""
    estimates = np.asarray(estimates, np.float64)
    error = np.std(estimates, axis=0, ddof=1) / np.sqrt(len(estimates))
    away = np.abs(np.mean(estimates, axis=0) - want)
    assert np.all(away < deviations * error), (away / error, error)
    return error


def test_es_is_unbiased_for_the_smoothed_gradient():
    """E cos(x + s e) = cos(x) exp(-s^2 / 2), far from the plain gradient at s = 1."""
    x, sigma = jnp.array([0.5, -1.2]), 1.0

    def one(key):
        return es(lambda x: jnp.sum(jnp.cos(x)), x, key=key, sigma=sigma, pairs=2)[1]

    estimates = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 4000))
    want = -np.sin(np.asarray(x, np.float64)) * np.exp(-(sigma**2) / 2)
    error = within(estimates, want)
    assert np.all(np.abs(want - -np.sin(x)) > 8 * error)


def linear(rate=0.9):
    """w <- rate w + x, with loss w^2: quadratic in all perturbations together.

    The smoothed objective's gradient is then that of the objective itself.
    """

    def window(w, x, data):
        del data
        w, losses = scan(lambda w, _: (rate * w + x, w**2), w, length=2, policy="none")
        return w, jnp.sum(losses)

    return window


def total(x, windows):
    def step(w, _):
        return linear()(w, x, None)

    return jnp.sum(scan(step, 1.0, length=windows, policy="none")[1])


@pytest.mark.parametrize("persistent", [True, False])
def test_pes_is_unbiased_where_truncation_is_not(persistent):
    windows, x = 4, jnp.float32(0.3)
    tuner = pes(linear(), pairs=2000, sigma=0.3, persistent=persistent)

    def one(key):
        def step(state, key):
            _, grads, state = tuner.update(x, state, key=key)
            return state, grads

        state = tuner.init(x, jnp.ones(2000))
        _, grads = jax.lax.scan(step, state, jax.random.split(key, windows))
        return jnp.sum(grads)

    keys = jax.random.split(jax.random.key(1), 40)
    estimates = jax.jit(functools.partial(jax.lax.map, one))(keys)
    want = float(jax.grad(total)(x, windows))
    if persistent:
        within(estimates, want)
    else:  # each window knows its own two steps alone
        with pytest.raises(AssertionError):
            within(estimates, want, 20)


def test_trees_and_what_is_no_float():
    x = {"a": jnp.ones((2, 2), jnp.bfloat16), "n": 3, "b": (jnp.float32(2.0),)}

    def fun(x):
        return jnp.sum(x["a"].astype(jnp.float32)) * x["b"][0] * x["n"]

    value, grads = es(fun, x, key=jax.random.key(0), pairs=6, batch_size=2)
    assert value.shape == ()
    assert grads["n"] == 3
    assert grads["a"].dtype == jnp.bfloat16
    assert grads["b"][0].shape == ()
    whole = es(fun, x, key=jax.random.key(0), pairs=6)
    assert_close(whole, (value, grads), rtol=1e-5)
    assert finite_difference(lambda x: 1.0, {"n": 3}) == {"n": 3}
    slope = finite_difference(fun, x)
    assert slope["n"] == 3
    assert slope["a"].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(slope["a"]), 6, rtol=0.01)
    np.testing.assert_allclose(slope["b"][0], 12, rtol=1e-3)


def test_finite_difference_needs_no_derivative():
    def fun(x):  # a while loop has no reverse mode
        return jax.lax.while_loop(
            lambda c: c[1] < 3, lambda c: (c[0] * x, c[1] + 1), (x, 0)
        )[0]

    np.testing.assert_allclose(
        jax.jit(lambda: finite_difference(fun, 1.5))(), 13.5, 1e-3
    )
    with jax.enable_x64(True):
        x = jnp.float64([0.3, 40.0])
        found = finite_difference(lambda x: jnp.sum(jnp.sin(x)), x)
        np.testing.assert_allclose(found, np.cos(x), rtol=1e-8)
        second = jax.grad(
            lambda x: jnp.sum(finite_difference(lambda x: jnp.sum(x**3), x))
        )(x)
        np.testing.assert_allclose(second, 6 * x, rtol=1e-6)


def test_mistakes():
    key = jax.random.key(0)

    def updated(run, **kwargs):
        tuner = pes(run, pairs=2)
        return tuner.update(0.5, tuner.init(0.5, jnp.ones(2)), key=key, **kwargs)

    for call, message in (
        (lambda: es(jnp.sum, 1.0, key=key, pairs=0), "pairs: wanted >= 1, came 0"),
        (lambda: es(jnp.sum, 1.0, key=key, pairs=1, sigma=0), "sigma: wanted > 0"),
        (lambda: pes(linear(), pairs=0), "pairs: wanted >= 1, came 0"),
        (lambda: pes(linear(), pairs=2, sigma=-1), "sigma: wanted > 0, came -1"),
        (
            lambda: pes(linear(), pairs=2).init(1.0, {"w": jnp.ones(3)}),
            r"inner: wanted leaves \[2, ...\], one a pair, came \(3,\) at \['w'\]",
        ),
        (
            lambda: updated(linear(), restart=(jnp.ones(1, bool), jnp.ones(2))),
            r"restart: wanted shape \(2,\), came \(1,\)",
        ),
        (
            lambda: updated(lambda w, x, _: (w, x * jnp.ones(3))),
            r"run: its loss: wanted float\[\], came float32\[3\]",
        ),
        (
            lambda: es(lambda x: x, jnp.ones(2), key=key, pairs=1),
            r"fun: wanted float\[\], came float32\[2\]",
        ),
        (lambda: finite_difference(jnp.sum, 1.0, eps=0), "eps: wanted > 0, came 0"),
        (
            lambda: finite_difference(lambda x: x, jnp.ones(2)),
            r"fun: wanted float\[\], ca",
        ),
    ):
        with as_users_see_it(), pytest.raises(ValueError, match=message):
            call()
