"""MAGIC: influence is what happens; of examples and of tokens, for many targets."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import AxisType

from jaxtricks import optimizers
from jaxtricks.metagrad import linear_datamodeling_score, magic, mixed
from tests.free.common import as_users_see_it, assert_close, put
from tests.inputs import rng
from tests.metagrad.asked import ask
from tests.metagrad.golden_data import ACTUAL, PREDICTED

N, T = 12, 20
X = rng(130).normal(size=(N, 4, 3)).astype(np.float32)  # 12 sequences of 4 tokens
Y = rng(131).normal(size=(N, 4)).astype(np.float32)
ORDER = rng(132).integers(0, N, size=(T, 5)).astype(np.int32)
TX = optimizers.differentiable(optax.adam(0.02))


def losses(params, x, y):
    hidden = jnp.tanh(x @ params["w"])
    return (hidden @ params["v"] - y) ** 2


def start(dtype=jnp.float32):
    params = {
        "w": jnp.asarray(rng(133).normal(size=(3, 4)), dtype),
        "v": jnp.asarray(rng(134).normal(size=4), dtype),
    }
    return params, TX.init(params)


def step(carry, index, weights):
    """Adam; weights are of examples, or of tokens."""
    params, state = carry
    by = weights[index] if weights.ndim == 2 else weights[index][:, None]

    def loss(params):
        x, y = (jnp.asarray(of, params["v"].dtype)[index] for of in (X, Y))
        return jnp.mean(by * losses(params, x, y))

    updates, state = TX.update(mixed(jax.grad(loss))(params), state, params)
    return (optax.apply_updates(params, updates), state), None


def targets(carry):
    x, y = (jnp.asarray(of[:3], carry[0]["v"].dtype) for of in (X + 0.5, Y))
    return jnp.mean(losses(carry[0], x, y), axis=-1)


def found(weights, **kwargs):
    init = start(weights.dtype)
    return magic(step, init, jnp.asarray(ORDER), targets, weights, **kwargs)


@pytest.fixture(scope="module")
def of_ones():
    return jax.jit(lambda w: found(w, policy="step"))(jnp.ones(N))


def test_influence_is_what_retraining_gives():
    """Weight 1 +- 1e-3 in float64, and a token's likewise."""
    with jax.enable_x64(True):

        def at(weights):
            return found(weights, policy="step")

        run = jax.jit(at)
        for shape, where in (((N,), (4,)), ((N, 4), (7, 2))):
            ones = jnp.ones(shape)
            up, down = (run(ones.at[where].add(h)).values for h in (1e-3, -1e-3))
            got = run(ones).by_weight[(slice(None), *where)]
            np.testing.assert_allclose(got, (up - down) / 2e-3, rtol=1e-4)


def test_tokens_add_up_to_their_example_and_what_is_not_seen_has_none(of_ones):
    tokens = jax.jit(lambda w: found(w, policy="step"))(jnp.ones((N, 4)))
    assert_close(tokens.by_weight.sum(-1), of_ones.by_weight, rtol=1e-5)
    unseen = np.setdiff1d(np.arange(N), ORDER)
    assert not np.any(np.asarray(of_ones.by_weight)[:, unseen])


def test_tokens_of_a_language_model():
    """One head of causal attention, next tokens, Adam; every token's weight by central
    differences in float64, and a prediction of training without some of them."""
    tokens = rng(137).integers(0, 5, size=(6, 5))
    order = jnp.asarray([[0, 1, 2], [3, 4, 5], [1, 3, 5], [0, 2, 4]])

    def nll(params, x):
        hidden = params["embed"][x[:-1]]
        scores = hidden @ params["look"] @ hidden.T
        seen = jnp.tril(jnp.ones(scores.shape, bool))
        mixed = jax.nn.softmax(jnp.where(seen, scores, -1e9)) @ hidden
        logits = jnp.tanh(mixed + hidden) @ params["embed"].T
        return optax.softmax_cross_entropy_with_integer_labels(logits, x[1:])

    def step(carry, index, weights):
        params, state = carry

        def loss(params):
            each = jax.vmap(nll, (None, 0))(params, jnp.asarray(tokens)[index])
            return jnp.mean(weights[index] * each)

        updates, state = TX.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    with jax.enable_x64(True):
        shapes = {"embed": (5, 3), "look": (3, 3)}
        params = {k: jnp.asarray(rng(138).normal(size=v)) for k, v in shapes.items()}

        init = params, TX.init(params)

        def phi(carry):
            ends = jnp.asarray(tokens)[:2, ::-1]
            return jnp.mean(jax.vmap(nll, (None, 0))(carry[0], ends), -1)

        def trained(weights):
            return phi(lax.scan(lambda c, i: step(c, i, weights), init, order)[0])

        found = jax.jit(lambda w: magic(step, init, order, phi, w, policy="step"))
        at = found(jnp.ones((6, 4)))
        assert at.by_weight.shape == (2, 6, 4)
        run = jax.jit(jax.vmap(trained))
        by = 1e-5 * jnp.eye(24).reshape(24, 6, 4)
        more, less = jnp.split(run(1 + jnp.concatenate([by, -by])), 2)
        want = ((more - less) / 2e-5).T.reshape(2, 6, 4)
        np.testing.assert_allclose(at.by_weight, want, rtol=1e-5, atol=1e-9)
        rows = rng(139).permuted(np.tile(np.arange(24) < 2, (48, 1)), axis=1)
        without = jnp.asarray(1.0 - rows).reshape(48, 6, 4)
        told = jax.vmap(at.predict)(without)
        score = linear_datamodeling_score(told.T, run(without).T)
        assert np.all(score > 0.9)


def test_batches_of_targets_and_policies_agree(of_ones):
    for kwargs in ({"batch": 2}, {"batch": 1, "policy": "sqrt"}, {"batch": 9}):
        got = jax.jit(lambda w, kwargs=kwargs: found(w, **kwargs))(jnp.ones(N))
        assert_close(got[:2], of_ones[:2], rtol=1e-5)


def test_a_prediction_is_linear(of_ones):
    weights = rng(135).uniform(0.5, 1, size=(4, N)).astype(np.float32)
    got = jax.vmap(of_ones.predict)(jnp.asarray(weights))
    by = np.asarray(of_ones.by_weight, np.float64)
    want = np.asarray(of_ones.values)[None] + (weights - 1) @ by.T
    assert_close(got, want, rtol=1e-5)
    assert_close(of_ones.predict(jnp.ones(N)), of_ones.values)


def test_the_limit_is_the_influence_function():
    """Ridge regression by gradient descent, T -> inf: -grad phi H^-1 grad l_i / n."""
    x, y = X[:, 0], Y[:, 0]

    def gd(w, _, weights):
        error = jnp.asarray(x) @ w - y
        return w - 0.2 * (jnp.asarray(x).T @ (weights * error) / N + 0.1 * w), None

    got = jax.jit(
        lambda ones: magic(gd, jnp.zeros(3), None, lambda w: w, ones, length=300)
    )(jnp.ones(N))
    wide = x.astype(np.float64)
    hessian = wide.T @ wide / N + 0.1 * np.eye(3)
    w = np.linalg.solve(hessian, wide.T @ y / N)
    each = (wide @ w - y)[:, None] * wide / N
    assert_close(got.values, w, rtol=1e-4)
    assert_close(got.by_weight, -np.linalg.solve(hessian, each.T), rtol=1e-3)


def test_on_a_mesh_and_in_bf16():
    """The batches over "data", parameters and Adam's moments over "model", of eight
    devices; matmuls in bf16."""
    order = np.tile(ORDER[:4, :4], (1, 2))

    @jax.jit
    def run(init, order):
        return magic(step, init, order, targets, jnp.ones(N))[:2]

    want = run(start(), order)
    spread = put(order, AxisType.Auto, None, "data")
    params = {
        "w": put(start()[0]["w"], AxisType.Auto, None, "model"),
        "v": put(start()[0]["v"], AxisType.Auto, "model"),
    }
    with jax.set_mesh(spread.sharding.mesh):
        assert_close(run((params, TX.init(params)), spread), want, rtol=1e-4)

    def short(carry, index, weights):
        del index
        low = carry.astype(jnp.bfloat16)
        by = jnp.asarray(X[:, 0], jnp.bfloat16).T @ jnp.tanh(
            jnp.asarray(X[:, 0], jnp.bfloat16) @ low
        )
        moved = jnp.sum(weights) * by.astype(jnp.float32)
        return carry - 0.01 * moved, None

    low = jax.jit(lambda w: magic(short, jnp.ones(3), None, lambda c: c, w, length=3))(
        jnp.ones(2)
    )
    assert low.values.dtype == low.by_weight.dtype == jnp.float32
    assert np.all(np.isfinite(low.by_weight))


def test_it_is_differentiable_again():
    """Of a rate, through an influence; against central differences in float64."""

    def gd(w, i, weights, rate):
        return w - rate * weights[i] * jnp.sin(w - i), None

    def slope(rate):
        step = lambda w, i, weights: gd(w, i, weights, rate)  # noqa: E731
        got = magic(step, 0.3, jnp.arange(3), lambda w: w[None] ** 2, jnp.ones(3))
        return jnp.sum(got.by_weight**2) + got.values[0]

    with jax.enable_x64(True):
        got = jax.jit(jax.grad(slope))(0.4)
        run = jax.jit(slope)
        want = (run(0.4 + 1e-5) - run(0.4 - 1e-5)) / 2e-5
        np.testing.assert_allclose(got, want, rtol=1e-7)


def test_bad_input():
    with as_users_see_it():
        args = lambda w, x, z: (w, None), 0.0, np.ones(2), lambda w: w, np.ones(2)
        with pytest.raises(ValueError, match=r"targets: wanted f\[targets\], came"):
            magic(*args)
        with pytest.raises(ValueError, match="batch: wanted >= 1"):
            magic(*args, batch=0)
        with pytest.raises(ValueError, match="actual: wanted shape"):
            linear_datamodeling_score(np.ones(3), np.ones(4))
        with pytest.raises(ValueError, match="predicted: wanted two subsets or more"):
            linear_datamodeling_score(np.ones(1), np.ones(1))


def test_scores_at_their_limits():
    x = rng(136).normal(size=(2, 9)).astype(np.float32)
    score = jax.jit(linear_datamodeling_score)
    assert_close(score(x, np.exp(3 * x)), np.ones(2))
    assert_close(score(x, -x), -np.ones(2))
    assert not np.any(score(x, np.zeros_like(x)))
    assert np.isnan(score(np.where(x > 1, np.nan, x), x)).any()
    slope = jax.grad(lambda x: jnp.sum(linear_datamodeling_score(x, ACTUAL[0])))
    assert not np.any(slope(PREDICTED[0]))


def test_scores_under_every_transformation():
    eight = np.tile(PREDICTED[0], (3, 1))[:8], np.tile(ACTUAL[0], (3, 1))[:8]
    ask(linear_datamodeling_score, *eight, slopes=False, bf16=0.1)
