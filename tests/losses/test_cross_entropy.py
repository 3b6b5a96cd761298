"""Cross entropy at what a case line cannot say: classes ruled out, wrong targets."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtricks import losses
from tests.free import common
from tests.inputs import logits_and_labels

LOGITS, LABELS = logits_and_labels.make((8,))
OUT = np.where(np.arange(6) == (LABELS[:, None] + 1) % 6, -np.inf, LOGITS)
SETTING = {"label_smoothing": 0.2, "z_loss": 0.01}


def test_a_class_ruled_out_is_a_class_that_is_not_there():
    for i in range(8):
        kept = np.isfinite(OUT[i])
        label = np.sum(kept[: LABELS[i]])
        want = losses.cross_entropy(OUT[i][kept], label, **SETTING)
        got = losses.cross_entropy(OUT[i], LABELS[i], **SETTING)
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_soft_one_hot_is_the_label():
    hot = np.eye(6, dtype=np.float32)[LABELS]
    for targets in (hot, hot.astype(bool), hot.astype(jnp.bfloat16)):
        with common.as_users_see_it():
            got = losses.cross_entropy(OUT, targets, **SETTING)
        want = losses.cross_entropy(OUT, LABELS, **SETTING)
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_mass_on_a_class_ruled_out_costs_inf_and_has_no_gradient():
    soft = np.full((8, 6), 1 / 6, np.float32)
    for targets in ((LABELS + 1) % 6, soft):

        def total(logits, smoothing, t=targets):
            return jnp.sum(losses.cross_entropy(logits, t, label_smoothing=smoothing))

        assert np.isposinf(losses.cross_entropy(OUT, targets)).all()
        both = jax.jacfwd(jax.grad(total, argnums=(0, 1)), argnums=1)
        common.assert_finite(jax.grad(total, argnums=(0, 1))(OUT, 0.1))
        common.assert_finite(both(OUT, 0.1))


@pytest.mark.parametrize("targets", [LABELS, np.eye(6, dtype=np.float32)[LABELS]])
def test_all_classes_ruled_out_cost_inf_and_have_no_gradient(targets):
    nothing = np.full((8, 6), -np.inf, np.float32)

    def total(logits):
        return jnp.sum(losses.cross_entropy(logits, targets, **SETTING))

    value, grad = jax.value_and_grad(total)(nothing)
    assert np.isposinf(value)
    common.assert_close(grad, np.zeros((8, 6)))


def test_targets_that_need_not_sum_to_one_are_weights():
    soft = np.random.default_rng(0).random((8, 6)).astype(np.float32)
    got = losses.cross_entropy(LOGITS, soft)
    np.testing.assert_allclose(
        got, optax.softmax_cross_entropy(LOGITS, soft), rtol=1e-6
    )


def test_smoothing_zero_still_has_a_derivative():
    def loss(smoothing):
        return losses.cross_entropy(OUT[0], LABELS[0], label_smoothing=smoothing)

    log_p = np.asarray(jax.nn.log_softmax(OUT[0]), np.float64)
    want = log_p[LABELS[0]] - log_p[np.isfinite(log_p)].mean()
    np.testing.assert_allclose(jax.grad(loss)(0.0), want, rtol=1e-5)


@pytest.mark.parametrize("targets", [np.zeros((8, 5), np.float32), np.zeros(7, int)])
def test_targets_that_do_not_fit(targets):
    name = "targets" if targets.ndim == 2 else "labels"
    common.raises(losses.cross_entropy, LOGITS, targets, naming=name)


def test_nan_logits_are_not_classes_ruled_out():
    logits = np.array([np.nan, 1.0, 2.0], np.float32)
    assert np.isnan(losses.cross_entropy(logits, 1, label_smoothing=0.1))


def test_float_labels_are_refused():
    common.raises(losses.cross_entropy, LOGITS, LABELS * 1.0, naming="integers")
