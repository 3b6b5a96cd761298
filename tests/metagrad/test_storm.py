"""STORM: what its rescaler is told, and that it finds the noisy labels by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtricks.metagrad import (
    StormRescaler,
    preserve_sum,
    scan,
    storm,
    storm_features,
    storm_memory,
    storm_weights,
)
from tests.free.common import as_users_see_it, assert_close
from tests.inputs import rng
from tests.metagrad.golden_noisy import BATCHES, NETS, SEEN, SEEN_LABELS

RESCALER = StormRescaler(*map(jnp.asarray, NETS))
LOSSES = rng(98).uniform(0.1, 3, size=5).astype(np.float32)


def test_equal_weights_are_plain_training_and_the_sum_stays():
    weights = storm_weights(RESCALER, SEEN, SEEN_LABELS)
    np.testing.assert_allclose(preserve_sum(LOSSES, weights).sum(), LOSSES.sum(), 1e-6)
    assert_close(preserve_sum(LOSSES, np.full(5, 0.3, np.float32)), LOSSES)
    assert not np.any(preserve_sum(LOSSES, np.zeros(5, np.float32)))
    assert not np.any(preserve_sum(0 * LOSSES, weights))
    # The weights act on the gradient, their common scale does not.
    by_losses = jax.grad(lambda x: jnp.sum(preserve_sum(x, weights)))(LOSSES)
    want = weights * LOSSES.sum() / jnp.sum(weights * LOSSES)
    assert_close(by_losses, want)
    by_weights = jax.grad(lambda w: jnp.sum(preserve_sum(LOSSES, w)))(weights)
    assert_close(by_weights, LOSSES * LOSSES.sum() / jnp.sum(weights * LOSSES))


def test_weights_of_alike_examples_are_a_half_with_finite_slopes():
    alike = np.ones((5, 19), np.float32)

    def f(rescaler):
        return jnp.sum(storm_weights(rescaler, alike, SEEN_LABELS) ** 2)

    value, slopes = jax.jit(jax.value_and_grad(f))(RESCALER)
    np.testing.assert_allclose(value, 5 / 4, rtol=1e-4)
    for leaf in jax.tree.leaves(slopes):
        assert np.all(np.isfinite(leaf))


def test_features_of_one_pass_and_of_nothing_known():
    losses, logits, labels = BATCHES[0]
    memory = storm_memory(labels=3, recent=4)
    features, memory = storm_features(losses[:1], logits[:1], labels, memory)
    assert features.shape == (6, 19)
    assert np.all(np.isfinite(features))
    held = [min(4, (labels == c).sum()) for c in range(3)]
    np.testing.assert_array_equal(memory.held.sum(1), held)
    slope = jax.grad(
        lambda x: jnp.sum(storm_features(x, logits[:1], labels, memory)[0])
    )(losses[:1])
    assert not np.any(slope)


def test_labels_out_of_range_give_nan_not_a_neighbours_statistics():
    losses, logits, labels = BATCHES[0]
    labels = labels.copy()
    labels[[1, 4]] = 3, -1
    features, _ = storm_features(
        losses, logits, labels, storm_memory(labels=3, recent=4)
    )
    weights = storm_weights(RESCALER, np.nan_to_num(features)[:5], labels[:5])
    wrong = np.array([False, True, False, False, True, False])
    np.testing.assert_array_equal(np.isnan(features).any(axis=1), wrong)
    np.testing.assert_array_equal(np.isnan(weights), wrong[:5])
    assert np.all(np.isfinite(np.asarray(features)[~wrong]))


def test_the_rescalers_first_weights():
    for scale, settings in ((1.0, {}), (0.5, {"scale": 0.5})):
        txs = optax.sgd(1.0), optax.sgd(1.0)
        tuner = storm(forward, *txs, labels=2, recent=3, **settings)
        inner = tuner.init(jnp.zeros(2), jax.random.key(0)).rescaler.inner
        np.testing.assert_allclose(np.abs(inner).max(), scale / 19**0.5, rtol=0.02)


def forward(params, batch, key):
    """A small network under dropout: three passes."""
    x, labels = batch

    def once(key):
        hidden = jax.nn.gelu(x @ params["w"] + params["b"][None])
        keep = jax.random.bernoulli(key, 0.8, hidden.shape)
        logits = jnp.where(keep, hidden / 0.8, 0) @ params["v"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses, logits

    losses, logits = jax.vmap(once)(jax.random.split(key, 3))
    return losses, logits, labels


def network(seed, inputs=2, hidden=16, classes=2):
    r = rng(seed)
    return {
        "w": r.normal(size=(inputs, hidden)).astype(np.float32),
        "b": r.normal(size=hidden).astype(np.float32) / 2,
        "v": r.normal(size=(hidden, classes)).astype(np.float32) / 4,
    }


@pytest.mark.slow
def test_its_meta_gradient_is_that_of_finite_differences():
    """Of the meta loss with features and factors held; by a step on the rescaler."""
    r = rng(99)
    xs = r.normal(size=(2, 5, 2))
    labels = jnp.asarray(r.integers(0, 2, size=(2, 5)))
    w, along = r.normal(size=(2, 2)), r.normal(size=(1, 19, 2))

    def forward(w, batch, key):
        logits = jnp.stack([batch[0] @ w, batch[0] @ w + 0.1 * batch[0]])
        losses = -jax.nn.log_softmax(logits)[:, jnp.arange(5), batch[1]]
        return losses, logits, batch[1]

    def run():
        def told(w, i):
            memory = storm_memory(labels=1, recent=5)
            losses, logits, _ = forward(w, (xs[i], labels[i]), None)
            return storm_features(losses, logits, labels[i], memory)[0]

        def summed(w, rescaler, features, i):
            losses = forward(w, (xs[i], labels[i]), None)[0][0]
            weights = storm_weights(rescaler, features, labels[i])
            return jnp.sum(preserve_sum(losses, weights))

        settings = {"labels": 1, "recent": 5, "preserve": True}
        tuner = storm(forward, optax.sgd(0.05), optax.sgd(1.0), **settings)
        state = tuner.init(jnp.asarray(w), jax.random.key(2))
        ahead = w - 0.05 * jax.grad(summed)(w, state.rescaler, told(w, 0), 0)
        held = told(w, 0), told(ahead, 1)
        weights = storm_weights(state.rescaler, held[1], labels[1])
        losses = forward(ahead, (xs[1], labels[1]), None)[0][0]
        factor = jnp.sum(losses) / jnp.sum(weights * losses)

        def meta(size):
            outer = state.rescaler.outer + size * along
            rescaler = state.rescaler._replace(outer=outer)
            weights = storm_weights(rescaler, held[0], labels[0])
            losses = forward(w, (xs[0], labels[0]), None)[0][0]
            before = storm_weights(state.rescaler, held[0], labels[0])
            first = jnp.sum(losses) / jnp.sum(before * losses)

            def weighed(w):
                losses = forward(w, (xs[0], labels[0]), None)[0][0]
                return first * jnp.sum(weights * losses)

            there = w - 0.05 * jax.grad(weighed)(w)
            losses = forward(there, (xs[1], labels[1]), None)[0][0]
            theirs = storm_weights(rescaler, held[1], labels[1])
            return factor * jnp.sum(theirs * losses)

        data = (xs[0], labels[0]), (xs[1], labels[1]), jax.random.key(3)
        after = tuner.step(state, data)[0].rescaler.outer
        values = jax.vmap(meta)(jnp.array([1e-5, -1e-5]))
        found = jnp.sum((state.rescaler.outer - after) * along)
        return found, (values[0] - values[1]) / 2e-5

    with jax.enable_x64(True):
        got, want = jax.jit(run)()
    assert abs(float(got)) > 1e-3
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.slow
def test_it_weighs_wrong_labels_less():
    """30 % of labels flipped; nothing tells it which."""
    r = rng(101)
    x = r.normal(size=(512, 2)).astype(np.float32)
    truth = (x[:, 0] * x[:, 1] > 0).astype(int)
    wrong = r.uniform(size=512) < 0.3
    labels = np.where(wrong, 1 - truth, truth)
    tuner = storm(forward, optax.adam(3e-3), optax.adam(1e-2), labels=2, recent=64)
    steps = 600
    at = jnp.asarray(r.integers(0, 512, size=(2, steps, 64)))

    def run():
        def step(state, given):
            (i, j), key = given
            batches = [(jnp.asarray(x)[k], jnp.asarray(labels)[k]) for k in (i, j)]
            state, (weights, _) = tuner.step(state, (*batches, key))
            bad = jnp.asarray(wrong)[i]
            of = [jnp.sum(jnp.where(m, weights, 0)) / jnp.sum(m) for m in (bad, ~bad)]
            return state, jnp.stack(of)

        state = tuner.init(network(102), jax.random.key(0))
        keys = jax.random.split(jax.random.key(1), steps)
        return scan(step, state, ((at[0], at[1]), keys), policy="none")[1]

    of_wrong, of_clean = np.asarray(jax.jit(run)())[-200:].mean(0)
    assert of_clean > of_wrong + 0.1, (of_clean, of_wrong)


def test_mistakes():
    for kwargs, message in (
        ({"labels": 0, "recent": 1}, "labels: wanted >= 1, came 0"),
        ({"labels": 1, "recent": 0}, "recent: wanted >= 1, came 0"),
    ):
        with as_users_see_it(), pytest.raises(ValueError, match=message):
            storm_memory(**kwargs)
