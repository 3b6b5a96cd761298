"""Labels that are all alike, tasks as sequences, and what attention may see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks.metagrad import caml_sequence, gpicl_loss, gpicl_tasks, simplex_etf
from tests.free.common import as_users_see_it, assert_close, assert_finite
from tests.inputs import rng


def test_the_simplex_has_its_rank_and_two_labels_are_opposite():
    for classes, dimension in ((2, None), (5, None), (5, 4), (5, 9)):
        found = np.asarray(simplex_etf(classes, dimension=dimension))
        assert found.shape == (classes, dimension or classes)
        assert np.linalg.matrix_rank(found, tol=1e-4) == classes - 1
        np.testing.assert_allclose(found.sum(0), 0, atol=1e-5)
    np.testing.assert_allclose(*(s * simplex_etf(2)[i] for i, s in ((0, 1), (1, -1))))


def encoder(tokens, weights):
    """One layer of attention without positions; what the first token reads."""
    scores = tokens @ weights @ tokens.T
    return (jax.nn.softmax(scores, axis=-1) @ tokens)[0]


def test_the_order_of_the_examples_does_not_matter():
    r = rng(93)
    x, query = r.normal(size=(6, 3)), r.normal(size=3)
    y, weights = np.array([0, 1, 2, 0, 1, 2]), r.normal(size=(6, 6))
    codes, unknown = simplex_etf(3), np.ones(3)
    with jax.enable_x64(True):
        tokens = caml_sequence(x, y, query, codes, unknown)
        other = r.permutation(6)
        turned = caml_sequence(x[other], y[other], query, codes, unknown)
        read = encoder(tokens, weights)
        assert_close(encoder(turned, weights), read, rtol=1e-10)
        assert not np.allclose(
            encoder(caml_sequence(x, y[::-1].copy(), query, codes, unknown), weights),
            read,
        )


def test_a_label_out_of_range_is_nan_and_gradients_are_finite():
    x, codes = jnp.ones((2, 3)), simplex_etf(3)
    for wrong in (-1, 3):
        found = caml_sequence(x, jnp.array([0, wrong]), x[0], codes, jnp.zeros(3))
        assert np.isnan(found[2, 3:]).all()
        assert np.isfinite(found[:2]).all()
    grads = jax.grad(
        lambda *floats: jnp.sum(
            caml_sequence(floats[0], jnp.array([0, 1]), *floats[1:]) ** 2
        ),
        argnums=(0, 1, 2, 3),
    )(x, x[0], codes, jnp.zeros(3))
    assert_finite(grads)


# --- sequences ------------------------------------------------------------------------

DATA = rng(94).normal(size=(9, 4)).astype(np.float32)
LABELS = np.arange(9) % 3
ROWS = rng(95).integers(0, 9, size=(2, 5))


def test_a_number_is_a_task():
    key = jax.random.key(0)
    x, y = gpicl_tasks(
        DATA, LABELS, np.array([4, 4]), ROWS[:1].repeat(2, 0), key=key, classes=3
    )
    assert_close((x[0], y[0]), (x[1], y[1]))
    other, _ = gpicl_tasks(DATA, LABELS, np.array([5, 4]), ROWS, key=key, classes=3)
    assert not np.allclose(other[0], x[0])
    # Equal labels stay equal, and different ones different.
    _, y = gpicl_tasks(
        DATA, LABELS, np.arange(6), np.tile(np.arange(9), (6, 1)), key=key, classes=3
    )
    for task in np.asarray(y):
        assert sorted(task[:3]) == [0, 1, 2]
        np.testing.assert_array_equal(task.reshape(3, 3), [task[:3]] * 3)


def causal(tokens):
    """Means of what came so far, and a fixed read-out."""
    sums = jnp.cumsum(tokens, axis=-2)
    counts = jnp.arange(1.0, tokens.shape[-2] + 1)[:, None]
    readout = jnp.asarray(rng(96).normal(size=(7, 3)), tokens.dtype)
    return (sums / jnp.broadcast_to(counts, sums.shape)) @ readout


def test_a_loss_does_not_depend_on_what_comes_later():
    x, y = DATA[:5], LABELS[:5]
    loss = gpicl_loss(causal, x, y, classes=3)
    later = gpicl_loss(causal, np.where(np.arange(5)[:, None] > 2, 7, x), y, classes=3)
    np.testing.assert_allclose(loss[:3], later[:3], rtol=1e-6)
    assert not np.allclose(loss[3:], later[3:])
    # The label itself is not shown with its input.
    changed = gpicl_loss(causal, x, np.where(np.arange(5) == 4, 0, y), classes=3)
    np.testing.assert_allclose(loss[:4], changed[:4], rtol=1e-6)
    batched = gpicl_loss(causal, np.stack([x, x]), np.stack([y, y]), classes=3)
    np.testing.assert_allclose(batched[1], loss, rtol=1e-6)


def test_masked_labels_are_zero_and_harmless():
    where = np.array([True, False, True, True, False])
    f = jax.jit(
        jax.grad(
            lambda x: jnp.sum(gpicl_loss(causal, x, LABELS[:5], classes=3, where=where))
        )
    )
    assert_finite(f(DATA[:5]))
    loss = gpicl_loss(causal, DATA[:5], LABELS[:5], classes=3, where=where)
    np.testing.assert_array_equal(loss[~where], 0)


def test_mistakes():
    key = jax.random.key(0)
    for call, message in (
        (lambda: simplex_etf(1), "classes: wanted >= 2, came 1"),
        (lambda: simplex_etf(4, dimension=2), "dimension: wanted >= 3, came 2"),
        (
            lambda: caml_sequence(
                DATA[:2], LABELS[:2], DATA[0], simplex_etf(3), np.ones(2)
            ),
            r"unknown: wanted shape \(3,\)",
        ),
        (
            lambda: gpicl_tasks(DATA, LABELS, np.arange(3), ROWS, key=key, classes=3),
            r"rows: wanted shape \(3, 5\)",
        ),
    ):
        with as_users_see_it(), pytest.raises(ValueError, match=message):
            call()
