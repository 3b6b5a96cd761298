"""Values equal the plain functions; at the edge both derivatives are finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks import _safe as safe

GRID = np.array([1e-30, 1e-8, 0.3, 1.0, 7.0, 1e30], np.float32)


@pytest.mark.parametrize(
    ("f", "plain", "at_zero"),
    [
        (safe.sqrt, np.sqrt, 0.0),
        (safe.rsqrt, lambda x: 1 / np.sqrt(x), 0.0),
        (safe.log, np.log, -np.inf),
    ],
)
def test_value_and_edge(f, plain, at_zero):
    np.testing.assert_allclose(f(GRID), plain(GRID.astype(np.float64)), rtol=3e-7)
    assert f(0.0) == at_zero
    assert jax.grad(f)(0.0) == 0
    assert jax.grad(jax.grad(f))(0.0) == 0
    assert np.isnan(f(-1.0))


def test_sqrt_derivative_is_exact_off_the_edge():
    np.testing.assert_allclose(jax.grad(safe.sqrt)(4.0), 0.25)


def test_divide():
    a = jnp.array([1.0, 2.0, 3.0])
    b = jnp.array([2.0, 0.0, -4.0])
    np.testing.assert_array_equal(safe.divide(a, b), [0.5, 0, -0.75])
    for argnum in (0, 1):
        grad = jax.grad(lambda *ab: safe.divide(*ab).sum(), argnum)(a, b)
        assert np.isfinite(grad).all()
        assert grad[1] == 0


def test_log1mexp():
    x = -np.array([1e-6, 1e-3, 0.5, 0.6931, 0.6932, 1.0, 5.0, 80.0])
    want = np.where(x > -1, np.log(-np.expm1(x)), np.log1p(-np.exp(x)))
    np.testing.assert_allclose(safe.log1mexp(x.astype(np.float32)), want, rtol=1e-5)
    for edge in (0.0, -1e-30, -1e4):
        for derivative in (safe.log1mexp, *_derivatives(safe.log1mexp)):
            assert np.isfinite(derivative(edge))


def _derivatives(f):
    return jax.grad(f), jax.grad(jax.grad(f))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_norm_neither_underflows_nor_overflows(scale):
    x = jnp.array([3.0, -4.0, 0.0]) * scale
    np.testing.assert_allclose(safe.norm(x), 5 * scale, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(safe.norm)(x), [0.6, -0.8, 0], rtol=1e-6)


def test_norm_at_zero():
    zero = jnp.zeros(3)
    assert safe.norm(zero) == 0
    assert safe.norm(jnp.zeros(0)) == 0
    np.testing.assert_array_equal(jax.grad(safe.norm)(zero), 0)
    np.testing.assert_array_equal(jax.hessian(safe.norm)(zero), 0)


def test_norm_hessian():
    x = np.array([1.0, -2.0, 0.5])
    size = np.linalg.norm(x)
    want = (np.eye(3) - np.outer(x, x) / size**2) / size
    got = jax.hessian(safe.norm)(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, want, atol=1e-6)
