"""Shift Shapley and its values; derivatives along inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks.metagrad import (
    importance_weighted_value,
    input_derivative_sensitivity,
    shift_shapley,
)
from tests.free.common import as_users_see_it, assert_close
from tests.inputs import rng
from tests.metagrad.asked import ask
from tests.metagrad.golden_data import HERE, RATIOS, SETTINGS, SHIFT_LOSSES, SOME

EIGHT = rng(160).gamma(2, size=8).astype(np.float32)
EIGHT_RATIOS = rng(161).normal(size=(8, 3)).astype(np.float32) / 3


@pytest.mark.parametrize("kwargs", SETTINGS)
def test_parts_add_up_to_the_value_of_all(kwargs):
    phi = shift_shapley(SHIFT_LOSSES, RATIOS, **kwargs)
    everyone = np.ones(4, np.float32)
    whole = importance_weighted_value(SHIFT_LOSSES, RATIOS, everyone, **kwargs)
    assert_close(phi.sum(), whole, rtol=1e-5)
    nobody = np.zeros(4, np.float32)
    none = importance_weighted_value(SHIFT_LOSSES, RATIOS, nobody, **kwargs)
    assert abs(float(none)) < 1e-6


def test_what_did_not_shift_has_no_part_and_alike_ones_have_alike_parts():
    ratios = RATIOS.copy()
    ratios[:, 1], ratios[:, 3] = 0, ratios[:, 0]
    phi = shift_shapley(SHIFT_LOSSES, ratios)
    assert abs(float(phi[1])) < 1e-6
    assert_close(phi[3], phi[0], rtol=1e-5)


def test_a_gaussian_chain_whose_parts_are_known():
    """x1 ~ N(0, 1) -> N(a, 1), x2 ~ N(x1, 1) -> N(x1 + b, 1), loss x2^2: the change is
    (a + b)^2, of which a^2 + ab and b^2 + ab."""
    a, b, n = 0.5, -0.2, 200_000
    r = rng(162)
    x1 = r.normal(size=n)
    x2 = x1 + r.normal(size=n)
    ratios = np.stack([a * x1 - a**2 / 2, b * (x2 - x1) - b**2 / 2], axis=1)
    phi = jax.jit(shift_shapley)((x2**2).astype(np.float32), ratios.astype(np.float32))
    np.testing.assert_allclose(phi, [a * a + a * b, b * b + a * b], atol=0.03)


def test_masked_samples_may_be_nan():
    losses = np.where(HERE, SHIFT_LOSSES, np.nan)
    ratios = np.where(HERE[:, None], RATIOS, np.nan)
    for f in (
        lambda x, r: shift_shapley(x, r, where=HERE),
        lambda x, r: importance_weighted_value(x, r, SOME, where=HERE),
    ):
        assert_close(f(losses, ratios), f(SHIFT_LOSSES, RATIOS))
        by = jax.grad(lambda x, f=f: jnp.sum(f(x, ratios)))(losses)
        assert np.isfinite(by).all()
        assert float(by[2]) == 0
    assert not np.any(shift_shapley(losses, ratios, where=np.zeros(7, bool)))


def test_ratios_at_their_edges():
    ratios = np.where(np.arange(7)[:, None] == 2, -np.inf, RATIOS)
    got = shift_shapley(SHIFT_LOSSES, ratios)
    assert np.isfinite(got).all()
    # Normalized, a constant in the ratios of what lives changes nothing.
    low = np.where(HERE[:, None], RATIOS - 40, np.nan)
    both = [
        importance_weighted_value(SHIFT_LOSSES, r, SOME, normalize=True, where=HERE)
        for r in (low, RATIOS)
    ]
    assert_close(*both, rtol=1e-4)
    huge = 1e4 * RATIOS
    for kwargs in ({"clip": 10.0}, {"normalize": True}):
        f = lambda r, kwargs=kwargs: jnp.sum(shift_shapley(SHIFT_LOSSES, r, **kwargs))  # noqa: E731
        for r in (huge, 0 * RATIOS):
            assert np.isfinite(f(r))
            assert np.isfinite(jax.grad(f)(r)).all()


def test_under_every_transformation():
    ask(shift_shapley, EIGHT, EIGHT_RATIOS, bf16=0.1)
    ask(
        lambda x, r: shift_shapley(x, r, normalize=True),
        EIGHT,
        EIGHT_RATIOS,
        bf16=0.1,
    )
    some = np.array([1, 0, 1], np.float32)
    ask(
        lambda x, r: importance_weighted_value(x, r, some)[None],
        EIGHT,
        EIGHT_RATIOS,
        bf16=0.1,
    )


def fun(x):
    return jnp.tanh(x[0] * x[1]) + x[2] ** 4 + x[0]


@pytest.mark.parametrize("order", [1, 2])
def test_sensitivity_under_every_transformation(order):
    x = rng(163).normal(size=(8, 4)).astype(np.float32)
    ask(
        lambda x: input_derivative_sensitivity(fun, x, order=order, signed=True),
        x,
        bf16=0.05,
    )
    got = input_derivative_sensitivity(fun, x, order=order)
    assert float(got[3]) == 0
    here = np.arange(8) < 5
    masked = input_derivative_sensitivity(
        fun, np.where(here[:, None], x, np.nan), order=order, where=here
    )
    assert_close(masked, input_derivative_sensitivity(fun, x[:5], order=order))


def test_it_is_the_diagonal_of_the_hessian_and_of_jet():
    from jax.experimental.jet import jet

    x = rng(164).normal(size=(1, 4)).astype(np.float32)
    second = input_derivative_sensitivity(fun, x, order=2, signed=True)
    assert_close(second, jnp.diag(jax.hessian(fun)(x[0])), rtol=1e-5)
    third = input_derivative_sensitivity(fun, x, order=3, signed=True)

    def by_jet(unit):
        series = [jnp.asarray(unit), jnp.zeros(4), jnp.zeros(4)]
        return jet(fun, (jnp.asarray(x[0]),), (series,))[1][2]

    units = np.eye(4, dtype=np.float32)
    assert_close(third, np.array([by_jet(unit) for unit in units]), rtol=1e-4)


def test_bad_input():
    with as_users_see_it():
        with pytest.raises(ValueError, match="log_ratios: wanted shape"):
            shift_shapley(SHIFT_LOSSES, RATIOS[:3])
        with pytest.raises(ValueError, match="log_ratios: wanted 1 to 20 mechanisms"):
            shift_shapley(SHIFT_LOSSES, np.zeros((7, 21), np.float32))
        with pytest.raises(ValueError, match="clip: wanted > 0"):
            shift_shapley(SHIFT_LOSSES, RATIOS, clip=0)
        with pytest.raises(ValueError, match="coalition: wanted shape"):
            importance_weighted_value(SHIFT_LOSSES, RATIOS, np.ones(3, np.float32))
        with pytest.raises(ValueError, match="order: wanted >= 1"):
            input_derivative_sensitivity(fun, np.ones((2, 4)), order=0)
        with pytest.raises(ValueError, match=r"x: wanted f\[n, features\]"):
            input_derivative_sensitivity(fun, np.ones(4))
