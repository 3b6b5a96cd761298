"""The exponent of comp-sum through 1, and where the loss leaves the numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks import losses
from tests.free import common
from tests.inputs import logits_and_labels

LOGITS, LABELS = logits_and_labels.make((8,))


def test_every_derivative_in_tau_at_exactly_one():
    with jax.enable_x64(True):
        x = jnp.asarray(LOGITS, jnp.float64)
        log_p = -losses.cross_entropy(x, LABELS)
        f = lambda tau: losses.comp_sum(x, LABELS, tau=tau)  # noqa: E731
        for power, factor in ((1, 1.0), (2, 1 / 2), (3, 1 / 3), (4, 1 / 4)):
            # (1 - p^a) / a = -sum_n a^(n-1) l^n / n!
            np.testing.assert_allclose(f(1.0), -(log_p**power) * factor, rtol=1e-12)
            f = jax.jacfwd(f)


def test_smooth_where_the_two_branches_meet():
    with jax.enable_x64(True):
        x = jnp.asarray(LOGITS, jnp.float64)
        log_p = np.asarray(-losses.cross_entropy(x, LABELS))
        loss = lambda tau: losses.comp_sum(x[0], LABELS[0], tau=tau)  # noqa: E731
        derivatives = [loss, jax.grad(loss), jax.grad(jax.grad(loss))]
        for meet in (1 + 0.5 / log_p[0], 1 - 0.5 / log_p[0]):
            for f in derivatives:
                left, right = f(meet - 1e-12), f(meet + 1e-12)
                np.testing.assert_allclose(left, right, rtol=1e-10)


def test_gradient_is_exact_for_the_confidently_wrong():
    def loss(logits, tau):
        return losses.comp_sum(logits, 0, tau=tau)

    got = jax.grad(loss)(jnp.array([0.0, 30.0]), 1.5)
    want = np.exp(-15.0)  # p^(tau - 1) (1 - p), from p = e^-30
    np.testing.assert_allclose(got, [-want, want], rtol=1e-5)


@pytest.mark.parametrize("tau", [0.5, 1.0, 1.5, 2.0])
def test_a_label_ruled_out_costs_the_bound(tau):
    logits = jnp.array([-jnp.inf, 1.0, 2.0])

    def loss(logits, tau):
        return losses.comp_sum(logits, 0, tau=tau)

    bound = 1 / (tau - 1) if tau > 1 else np.inf
    np.testing.assert_allclose(loss(logits, tau), bound, rtol=1e-6)
    slopes = jax.grad(loss, argnums=(0, 1))
    common.assert_finite(slopes(logits, tau))
    common.assert_finite(jax.jacfwd(slopes, argnums=1)(logits, tau))


def test_too_large_is_inf_without_nan():
    def loss(logits, tau):
        return losses.comp_sum(logits, 0, tau=tau)

    for wrong in (80.0, 88.0, 90.0, 1e4):
        args = jnp.array([0.0, wrong]), 0.0
        value, slopes = jax.value_and_grad(loss, argnums=(0, 1))(*args)
        want = np.exp(wrong) if wrong < 89 else np.inf
        np.testing.assert_allclose(value, want, rtol=1e-5)
        common.assert_no_nan(slopes)
