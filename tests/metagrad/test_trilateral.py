"""TGeo-KD's geometry, and a fusion ratio learned through a step of training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks import losses
from jaxtricks.metagrad import (
    class_predictions,
    fused_distillation,
    inner_adapt,
    trilateral_geometry,
)
from tests.free.common import as_users_see_it, assert_close
from tests.inputs import rng
from tests.metagrad.golden_noisy import LABELS, STUDENT, TEACHER

X = rng(110).normal(size=(6, 4)).astype(np.float32)
W = rng(111).normal(size=(4, 3)).astype(np.float32)


def test_the_ends_of_the_ratio():
    none = fused_distillation(STUDENT, TEACHER, LABELS, np.zeros(6, np.float32))
    assert_close(none, losses.cross_entropy(STUDENT, LABELS))
    all_of_it = np.ones(6, np.float32)
    same = fused_distillation(TEACHER, TEACHER, LABELS, all_of_it)
    np.testing.assert_allclose(same, 0, atol=1e-5)
    slope = jax.grad(
        lambda z: fused_distillation(
            z, TEACHER, LABELS, all_of_it, temperature=1.0
        ).sum()
    )(STUDENT)
    assert_close(slope, jax.nn.softmax(STUDENT) - jax.nn.softmax(TEACHER), rtol=1e-5)


def geometry(student, teacher=TEACHER, labels=LABELS):
    means = class_predictions(jax.nn.softmax(TEACHER), LABELS)
    s, t = jax.nn.softmax(student), jax.nn.softmax(teacher)
    return trilateral_geometry(s, t, labels, means)


def test_the_geometry_follows_its_examples():
    whole, order = geometry(STUDENT), np.array([3, 1, 5, 0, 2, 4])
    assert_close(geometry(STUDENT[order], TEACHER[order], LABELS[order]), whole[order])
    assert_close(geometry(STUDENT[0], TEACHER[0], LABELS[0]), whole[0])
    assert np.isnan(geometry(STUDENT[0], TEACHER[0], np.int32(3))).any()
    alike = geometry(TEACHER)  # the student is the teacher: that edge is 0
    assert not np.any(alike[:, 18:21])


def test_mistakes():
    p, means, ratio = jax.nn.softmax(STUDENT), np.eye(3), np.ones(6, np.float32)
    for call, message in (
        (lambda: trilateral_geometry(p, p[:1], LABELS, means), "teacher: wanted"),
        (lambda: trilateral_geometry(p, p, LABELS, np.eye(4)), "means: wanted"),
        (lambda: fused_distillation(p, p[:1], LABELS, ratio), "teacher_logits: wanted"),
        (lambda: fused_distillation(p, p, LABELS, ratio[:1]), "ratio: wanted"),
    ):
        with as_users_see_it(), pytest.raises(ValueError, match=message):
            call()


def test_the_ratios_network_learns_through_a_step_of_training():
    """Its meta-gradient is that of finite differences."""
    with jax.enable_x64(True):
        x, teacher = jnp.float64(X), jnp.float64(TEACHER)
        omega, along = jnp.float64(rng(112).normal(size=(2, 27)) / 3)

        def valid(omega):
            def train(w, x):
                logits = x @ w
                told = geometry(jax.lax.stop_gradient(logits), teacher)
                ratio = jax.nn.sigmoid(told @ omega)
                return fused_distillation(logits, teacher, LABELS, ratio).mean()

            w = inner_adapt(train, jnp.float64(W), x, rate=0.5, policy="none")
            return losses.cross_entropy(x[::-1] @ w, LABELS).mean()

        def both():
            up, down = jax.vmap(valid)(omega[None] + 1e-5 * jnp.stack([along, -along]))
            return jnp.vdot(jax.grad(valid)(omega), along), (up - down) / 2e-5

        got, want = jax.jit(both)()
    assert abs(float(got)) > 1e-4
    np.testing.assert_allclose(got, want, rtol=1e-6)
