"""Self-tuning networks: the layer, and that its response is the best one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtricks.metagrad import (
    BestResponse,
    best_response_linear,
    perturb_hyper,
    perturbation_entropy,
    scan,
    stn,
)
from tests.free.common import as_users_see_it, assert_close
from tests.inputs import rng


def layer(**changes):
    r = rng(90)
    shapes = ((3, 2), (2,), (3, 2), (2,), (4, 2), (4, 2))
    params = BestResponse(*(r.normal(size=s).astype(np.float32) for s in shapes))
    return params._replace(**changes)


X = rng(91).normal(size=(5, 3)).astype(np.float32)
HYPER = rng(92).normal(size=(5, 4)).astype(np.float32)


def test_without_gates_it_is_a_linear_layer():
    zero = np.zeros((4, 2), np.float32)
    params = layer(weight_gate=zero, bias_gate=zero)
    want = X @ params.weight + params.bias[None]
    assert_close(best_response_linear(X, HYPER, params), want)
    assert_close(best_response_linear(X, 0 * HYPER, layer()), want)


def test_any_batch_and_its_derivatives():
    params = layer()
    f = jax.jit(best_response_linear)
    whole = f(X, HYPER, params)
    assert_close(jax.vmap(f, (0, 0, None))(X, HYPER, params), whole)
    assert_close(f(X[0], HYPER[0], params), whole[0])
    assert f(X[:0], HYPER[:0], params).shape == (0, 2)
    low = f(X.astype(jnp.bfloat16), HYPER, params)
    np.testing.assert_allclose(low, whole, rtol=0.05, atol=0.05)
    slope = jax.jacfwd(lambda h: f(X, h, params)[0])(HYPER)[:, 0]
    gates = params.weight_gate * (X[0] @ params.response_weight)
    assert_close(slope.T, gates + params.bias_gate * params.response_bias)


def test_the_trained_response_is_that_of_ridge_regression():
    """w(hyper) to first order: w*, and -l (A + l)^-1 w* in the log of l."""
    data = rng(93).normal(size=(20, 2))
    target = data @ np.array([1.0, -2.0]) + rng(94).normal(size=20)
    curve, pull, centre = data.T @ data / 20, data.T @ target / 20, 0.3

    def weights(params, hyper):  # the response of a layer with one input, 1
        return best_response_linear(jnp.ones((len(hyper), 1)), hyper - centre, params)

    def loss(params, hyper, _):
        w = weights(params, hyper)
        fit = jnp.einsum("ni,ij,nj->n", w, curve, w) / 2 - w @ pull
        return jnp.mean(fit + jnp.exp(hyper[:, 0]) * jnp.sum(w**2, axis=1) / 2)

    tuner = stn(loss, loss, optax.sgd(0.2), optax.sgd(0.0), examples=64)
    zero, one = jnp.zeros((1, 2)), jnp.ones((1, 2))
    params = BestResponse(zero, zero[0], one, zero[0], zero, zero)
    state = tuner.init(params, jnp.array([centre]), jnp.array([-2.0]))

    def train(state):
        keys = jax.random.split(jax.random.key(0), 30)
        empty = jnp.zeros((30, 40)), jnp.zeros((30, 0)), keys
        state, _ = scan(tuner.step, state, empty)
        f = lambda h: weights(state.params, h[None])[0]  # noqa: E731
        return f(state.hyper), jax.jacfwd(f)(state.hyper)[:, 0], state.hyper

    w, moves, hyper = jax.jit(train)(state)
    matrix = curve + np.exp(centre) * np.eye(2)
    best = np.linalg.solve(matrix, pull)
    np.testing.assert_allclose(hyper, [centre])
    np.testing.assert_allclose(w, best, rtol=0.02)
    want = -np.exp(centre) * np.linalg.solve(matrix, best)
    np.testing.assert_allclose(moves, want, rtol=0.15)


def test_perturbations_and_their_entropy():
    hyper, scale = jnp.array([1.0, -2.0]), jnp.array([0.5, -1.0])
    drawn = perturb_hyper(hyper, scale, key=jax.random.key(1), examples=20000)
    spread = np.log1p(np.exp(scale))
    np.testing.assert_allclose(drawn.mean(0), hyper, atol=4 * spread.max() / 140)
    np.testing.assert_allclose(drawn.std(0), spread, rtol=0.03)
    # softplus(x) ~ e^x far down: the entropy falls as x does, and stays finite.
    low, high = perturbation_entropy(jnp.float32([-100.0])), 1.4189385 - 100
    np.testing.assert_allclose(low, high, rtol=1e-6)
    slope = jax.grad(lambda s: perturbation_entropy(s))(
        jnp.float32([-100.0, 0.0, 50.0])
    )
    np.testing.assert_allclose(slope, [1, 0.5 / np.log(2), 1 / 50], rtol=1e-5)


def test_mistakes():
    tuner = stn(max, max, optax.sgd(1.0), optax.sgd(1.0), examples=1)
    state = tuner.init(jnp.zeros(1), jnp.zeros(1), jnp.zeros(1))
    with as_users_see_it(), pytest.raises(ValueError, match="batches: wanted arrays"):
        tuner.step(state, (None, None, jax.random.key(0)))
    with as_users_see_it(), pytest.raises(ValueError, match="examples: wanted >= 1"):
        stn(max, max, optax.sgd(1.0), optax.sgd(1.0), examples=0)
