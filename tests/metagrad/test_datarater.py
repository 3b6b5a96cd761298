"""DataRater: windows by hand, a population that ages, noise that is found, filters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtricks import optimizers
from jaxtricks.metagrad import (
    datarater,
    datarater_weights,
    topk_batch_filter,
    topk_keep_probability,
)
from tests.free.common import as_users_see_it, assert_close
from tests.inputs import rng
from tests.metagrad.asked import ask
from tests.metagrad.golden_data import HELD, RATED, rater

KEY = jax.random.key(0)


def test_a_constant_in_the_scores_changes_nothing():
    scores = rng(150).normal(size=8).astype(np.float32)
    weights = datarater_weights(scores)
    assert_close(datarater_weights(scores + 3), weights, rtol=1e-5)
    slope = jax.grad(lambda s: jnp.sum(datarater_weights(s) * scores**2))(scores)
    assert abs(float(slope.sum())) < 1e-6


def test_an_example_that_is_ruled_out_counts_nothing():
    scores = np.array([0.5, -np.inf, 1.0, 4.0], np.float32)
    got = datarater_weights(scores)
    assert float(got[1]) == 0
    assert_close(got.sum(), 1.0)
    slope = jax.grad(lambda s: jnp.sum(datarater_weights(s) * jnp.arange(4.0)))(scores)
    assert np.isfinite(slope).all()
    assert not np.any(datarater_weights(np.full(3, -np.inf, np.float32)))


def test_the_meta_gradient_is_finite_differences_through_adam():
    """Two parameters, a linear model, the inner optimizer's state carried along."""
    x, y = rng(151).normal(size=(4, 5, 2)), rng(152).normal(size=(4, 5))
    tx = optimizers.differentiable(optax.adam(0.1))

    def made(rate):
        return datarater(
            lambda eta, batch: jnp.tanh(batch[0] @ eta),
            lambda w, batch: (batch[0] @ w - batch[1]) ** 2,
            fresh=lambda key: jax.random.normal(key, (2,)),
            optimizer=tx,
            meta_optimizer=optax.sgd(rate),
            population=1,
        )

    with jax.enable_x64(True):
        batches = jax.tree.map(lambda a: jnp.asarray(a)[None, :3], (x, y))
        held = jax.tree.map(lambda a: jnp.asarray(a)[None, 3], (x, y))
        eta = jnp.array([0.4, -0.7])

        @jax.jit
        def run(eta):
            one = made(1.0)
            return one.update(eta, one.init(eta, key=KEY), batches, held, key=KEY)

        moved, _, _ = run(eta)
        for i, unit in enumerate(np.eye(2)):
            up, down = (run(eta + h * unit)[2][0] for h in (1e-5, -1e-5))
            np.testing.assert_allclose(eta[i] - moved[i], (up - down) / 2e-5, rtol=1e-6)


def test_models_begin_anew_one_after_another():
    made = rater(optax.sgd(0.1), lifetime=6)
    state = made.init(jnp.float32(0), key=KEY)
    assert state.age.tolist() == [0, 2, 4]
    batches, held = (jnp.asarray(x, jnp.float32) for x in (RATED, HELD))

    def window(carry, _):
        eta, state = carry
        eta, state, _ = made.update(eta, state, batches, held, key=KEY)
        return (eta, state), (state.age, state.params)

    _, (ages, params) = jax.lax.scan(window, (jnp.float32(0), state), length=7)
    assert ages.tolist() == [
        [1, 3, 5],
        [2, 4, 0],
        [3, 5, 1],
        [4, 0, 2],
        [5, 1, 3],
        [0, 2, 4],
        [1, 3, 5],
    ]
    assert ((np.asarray(params) == 0) == (np.asarray(ages) == 0)).all()


def test_it_rates_wrong_labels_low():
    """Logistic regression; half of each batch has labels at random, and says so."""
    truth = np.array([2.0, -1.5, 1.0])

    def batch(key, n, noisy):
        a, b, c = jax.random.split(key, 3)
        x = jax.random.normal(a, (n, 3))
        y = (x @ jnp.asarray(truth, x.dtype) > 0).astype(x.dtype)
        wrong = (jnp.arange(n) < n // 2) & noisy
        y = jnp.where(wrong, jax.random.bernoulli(b, 0.5, (n,)).astype(x.dtype), y)
        mark = jnp.where(wrong, 1, -1) + 0.5 * jax.random.normal(c, (n,))
        return {"x": x, "y": y, "mark": mark}

    def losses(w, batch):
        return optax.sigmoid_binary_cross_entropy(batch["x"] @ w, batch["y"])

    made = datarater(
        lambda eta, batch: eta["a"] * batch["mark"] + eta["b"] * batch["x"][:, 0],
        losses,
        fresh=lambda key: jax.random.normal(key, (3,)),
        optimizer=optax.sgd(0.5),
        meta_optimizer=optax.adam(0.05),
        population=4,
        lifetime=8,
    )

    def window(carry, key):
        eta, state = carry
        a, b, c = jax.random.split(key, 3)
        inner = jax.random.split(a, (4, 2))
        batches = jax.vmap(jax.vmap(lambda k: batch(k, 16, True)))(inner)
        held = jax.vmap(lambda k: batch(k, 32, False))(jax.random.split(b, 4))
        eta, state, loss = made.update(eta, state, batches, held, key=c)
        return (eta, state), loss

    @jax.jit
    def run():
        eta = {"a": jnp.float32(0), "b": jnp.float32(0)}
        state = made.init(eta, key=KEY)
        return jax.lax.scan(window, (eta, state), jax.random.split(KEY, 80))

    (eta, _), _ = run()
    assert float(eta["a"]) < -0.5
    assert abs(float(eta["b"])) < 0.5 * abs(float(eta["a"]))


def test_a_population_of_one_kind_moves_as_one():
    """Adam for each and then the mean; alike models are one model."""
    same = [np.repeat(x[:1], 3, axis=0).astype(np.float32) for x in (RATED, HELD)]
    made = rater(optax.adam(0.05))
    eta = jnp.float32(0.3)
    got = made.update(eta, made.init(eta, key=KEY), *same, key=KEY)
    assert_close(got[2], np.repeat(got[2][:1], 3))
    assert_close(abs(got[0] - eta), 0.05, rtol=1e-4)


def test_the_filter_keeps_as_many_as_live():
    scores = rng(153).normal(size=8).astype(np.float32)
    live = np.arange(8) % 3 != 0
    got = jax.jit(lambda s, w: topk_batch_filter(s, keep=4, where=w))
    best = np.argsort(-np.where(live, scores, -np.inf))[:4]
    np.testing.assert_array_equal(np.flatnonzero(got(scores, live)), np.sort(best))
    hidden = np.where(live, scores, np.nan)
    np.testing.assert_array_equal(got(hidden, live), got(scores, live))
    assert got(scores, np.arange(8) < 2).sum() == 2
    assert not got(scores, np.zeros(8, bool)).any()
    worst = np.array([np.nan, -np.inf, 1.0, -np.inf, np.nan], np.float32)
    got = [topk_batch_filter(worst, keep=k).tolist() for k in (2, 4)]
    assert got == [[False, k, True, m, False] for k, m in ((True, False), (True, True))]
    ask(lambda s: topk_batch_filter(s, keep=3), scores, slopes=False)


def test_the_probability_is_that_of_the_filter():
    """Batches of 5 uniform scores, the best 2 kept, beside each example's own."""
    scores = rng(154).random((4000, 5)).astype(np.float32)
    kept = jax.vmap(lambda s: topk_batch_filter(s, keep=2))(jnp.asarray(scores))
    p = topk_keep_probability(scores, keep=2, batch=5)
    assert abs(float(p.mean()) - 0.4) < 0.01
    for low in np.arange(0, 1, 0.25):
        near = (scores >= low) & (scores < low + 0.25)
        said, true = np.asarray(p)[near].mean(), np.asarray(kept)[near].mean()
        assert abs(said - true) < 0.03
    grid = (np.arange(2000) + 0.5).astype(np.float32) / 2000
    for keep, batch in ((1, 4), (3, 8), (30, 40)):
        mean = topk_keep_probability(grid, keep=keep, batch=batch).mean()
        np.testing.assert_allclose(mean, keep / batch, rtol=1e-4)


def test_the_probability_under_every_transformation():
    def f(p):
        return topk_keep_probability(p, keep=3, batch=8)

    p = np.array([0.1, 0.3, 0.5, 0.77, 0.9, 0.2, 0.6, 0.4], np.float32)
    ask(f, p, bf16=0.05)
    for edge in (0.0, 1.0):
        slopes = jax.grad(f)(edge), jax.grad(jax.grad(f))(edge)
        assert np.isfinite(slopes).all()
    assert np.isnan(f(np.float32(np.nan)))


def test_bad_input():
    scores = np.ones(4, np.float32)
    with as_users_see_it():
        for keep, said in (
            (-1, "wanted >= 0"),
            (5, "wanted at most the 4"),
        ):
            with pytest.raises(ValueError, match=f"keep: {said}"):
                topk_batch_filter(scores, keep=keep)
        with pytest.raises(ValueError, match=r"scores: wanted f\[batch\]"):
            topk_batch_filter(scores.reshape(2, 2), keep=1)
        with pytest.raises(ValueError, match="where: wanted shape"):
            topk_batch_filter(scores, keep=1, where=np.ones(3, bool))
        with pytest.raises(ValueError, match="batch: wanted at least keep, 5"):
            topk_keep_probability(scores, keep=5, batch=4)
        with pytest.raises(ValueError, match="keep: wanted >= 1"):
            topk_keep_probability(scores, keep=0, batch=4)
        with pytest.raises(ValueError, match="lifetime: wanted >= 1"):
            rater(optax.sgd(0.1), lifetime=0)
