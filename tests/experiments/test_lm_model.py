"""The model and the arms: what they must equal, and at which limits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lm import arms, train
from experiments.lm.config import Config
from experiments.lm.model import rotate

SMALL = Config(steps=20, seq_len=16, d_model=16, layers=1, heads=2, batch_size=4)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    targets = rng.integers(1, 256, (4, 16), dtype=np.int32)
    mask = np.arange(16) < np.array([[16], [16], [9], [1]])
    inputs = np.concatenate([np.zeros((4, 1), np.int32), targets[:, :-1]], axis=1)
    ids = np.arange(4, dtype=np.int32)
    return {"id": ids, "inputs": inputs, "targets": targets, "mask": mask}


def after(name, batch, steps=3, **changes):
    """Parameters and losses after some steps."""
    config = dataclasses.replace(SMALL, **changes)
    forward, params = train.model(config)
    init, step = arms.build(name, config, forward)
    state, losses = init(params), []
    for _ in range(steps):
        state, loss = jax.jit(step)(state, batch)
        losses.append(float(loss))
    assert int(state.step) == steps
    return state.params, losses


def assert_same(one, two, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), one, two)


@pytest.mark.parametrize("tied", [True, False])
def test_the_model_is_causal(batch, tied):
    forward, params = train.model(dataclasses.replace(SMALL, tied=tied))
    assert ("head" in params) != tied
    hidden, head = forward(params, batch["inputs"])
    assert (hidden.shape, head.shape) == ((4, 16, 16), (16, 256))
    later = batch["inputs"].copy()
    later[:, 8:] = 65
    changed, _ = forward(params, later)
    np.testing.assert_allclose(changed[:, :8], hidden[:, :8], atol=1e-6)
    assert (abs(changed[:, 8:] - hidden[:, 8:]).max(axis=(1, 2)) > 1e-3).all()


def test_rotated_products_depend_on_the_distance_alone():
    rng = np.random.default_rng(1)
    q, k = (jnp.asarray(rng.normal(size=(1, 1, 1, 8)), jnp.float32) for _ in range(2))
    q, k = (rotate(jnp.broadcast_to(x, (1, 12, 1, 8)))[0, :, 0] for x in (q, k))
    scores = np.asarray(q @ k.T)
    for distance in range(12):
        along = np.diagonal(scores, -distance)
        np.testing.assert_allclose(along, along[0], rtol=1e-4, atol=1e-5)
    assert np.ptp(scores[:, 0]) > 0.1


def test_the_reported_loss_is_the_plain_mean(batch):
    forward, params = train.model(SMALL)
    hidden, head = forward(params, batch["inputs"])
    nll = -jax.nn.log_softmax(hidden @ head)
    nll = np.take_along_axis(np.asarray(nll), batch["targets"][..., None], -1)[..., 0]
    for name in arms.TRICKS:
        _, losses = after(name, batch, steps=1)
        np.testing.assert_allclose(losses[0], nll[batch["mask"]].mean(), rtol=1e-5)


def test_sam_without_a_radius_and_weights_without_a_preference_are_adamw(batch):
    plain, _ = after("adamw", batch)
    assert_same(after("sam", batch, rho=0.0)[0], plain, atol=1e-6)
    assert_same(after("reweight", batch, temperature=1e6)[0], plain, atol=1e-4)
    for name in ("sam", "reweight"):
        params, _ = after(name, batch)
        moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), params, plain)
        assert max(jax.tree.leaves(moved)) > 1e-4, name


def test_the_schedules_share_their_warmup_peak_and_end():
    cosine, wsd = (
        arms.learning_rate(arms.TRICKS[name], dataclasses.replace(SMALL, steps=100))
        for name in ("adamw", "wsd")
    )
    for schedule in (cosine, wsd):
        np.testing.assert_allclose(schedule(0), 0, atol=1e-9)
        np.testing.assert_allclose(schedule(5), SMALL.lr, rtol=1e-6)
        np.testing.assert_allclose(schedule(100), SMALL.lr * SMALL.lr_end, rtol=1e-5)
    np.testing.assert_allclose(wsd(80), SMALL.lr, rtol=1e-6)
    assert float(cosine(80)) < SMALL.lr / 5


def test_the_temperature_falls_over_the_warmup():
    config = dataclasses.replace(SMALL, steps=200, warmup=0.05, temperature=0.5)
    steps = jnp.array([0, 4, 9, 150])
    found = jax.vmap(lambda step: arms.temperature(config, step))(steps)
    np.testing.assert_allclose(found, [5.0, 1.0, 0.5, 0.5])


def test_every_arm_learns(batch):
    for name in arms.TRICKS:
        _, losses = after(name, batch, steps=6)
        assert losses[-1] < losses[0] - 0.1, name
