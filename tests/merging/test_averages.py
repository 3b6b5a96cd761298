"""Averages along training: against numpy, in a scan, in bf16, their messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks import merging
from tests.free.common import as_users_see_it, assert_close, cast_floats
from tests.free.merge import make_tree

PATHS = np.random.default_rng(97).normal(size=(9, 4)).astype(np.float32)


def _averages(average):
    """The average after each of the steps, in one scan."""
    start = {"w": jnp.asarray(PATHS[0]), "n": jnp.int32(0)}

    def step(state, x):
        params = {"w": x, "n": jnp.int32(7)}
        mean, state = average.update(params, state)
        return state, mean

    _, means = jax.jit(lambda xs: jax.lax.scan(step, average.init(start), xs))(PATHS)
    assert np.all(means["n"] == 7)
    return np.asarray(means["w"])


def test_ema():
    for decay in (0.0, 0.5, 0.99):
        want, m = [], np.float64(PATHS[0])
        for x in PATHS:
            m = decay * m + (1 - decay) * x
            want.append(m)
        np.testing.assert_allclose(
            _averages(merging.ema(decay)), want, rtol=1e-5, atol=1e-6
        )


def test_ema_without_its_start():
    want, m = [], 0.0
    for t, x in enumerate(PATHS, 1):
        m = 0.9 * m + 0.1 * np.float64(x)
        want.append(m / (1 - 0.9**t))
    got = _averages(merging.ema(0.9, debias=True))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_ema_warms_up():
    want, m = [], np.float64(PATHS[0])
    for t, x in enumerate(PATHS, 1):
        rate = min(0.3, (1 + t) / (10 + t))
        m = rate * m + (1 - rate) * x
        want.append(m)
    got = _averages(merging.ema(0.3, warmup=True))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("start", "every"), [(0, 1), (3, 1), (2, 3), (20, 1)])
def test_swa(start, every):
    want, seen = [], []
    for t, x in enumerate(PATHS):
        if t >= start and (t - start) % every == 0:
            seen.append(x)
        want.append(np.mean(seen, axis=0) if seen else x)
    got = _averages(merging.swa(start=start, every=every))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "every"), [(1, 1), (3, 1), (2, 3), (20, 2)])
def test_lawa(size, every):
    want, seen = [], []
    for t, x in enumerate(PATHS):
        if t % every == 0:
            seen.append(x)
        want.append(np.mean(seen[-size:], axis=0))
    got = _averages(merging.lawa(size, every=every))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_bf16_is_averaged_in_f32():
    params = cast_floats(make_tree(0), jnp.bfloat16)
    moved = jax.tree.map(lambda x: x + x.dtype.type(1), params)
    for average in (merging.ema(0.999), merging.swa(), merging.lawa(3)):
        state = average.init(params)
        for _ in range(20):
            mean, state = average.update(moved, state)
        for a, b in zip(jax.tree.leaves(mean), jax.tree.leaves(params), strict=True):
            assert a.dtype == b.dtype
        assert mean["steps"] == moved["steps"]
    average = merging.ema(0.999)
    state = average.init(params)
    for _ in range(20):
        _, state = average.update(moved, state)
    step = state.memory["scale"] - jnp.float32(params["scale"])
    change = jnp.float32(moved["scale"]) - jnp.float32(params["scale"])
    np.testing.assert_allclose(step, (1 - 0.999**20) * change, rtol=1e-3)


def test_decay_is_differentiable():
    def last(decay):
        average = merging.ema(decay)
        state = average.init(jnp.zeros(()))
        for x in (1.0, 3.0):
            mean, state = average.update(jnp.float32(x), state)
        return mean

    # (1 - d) (d + 3) = 3 - 2 d - d^2
    assert_close(jax.grad(last)(0.5), jnp.float32(-3.0), rtol=1e-6)


def test_mistakes_are_named():
    with as_users_see_it():
        with pytest.raises(ValueError, match="decay"):
            merging.ema(1.5)
        with pytest.raises(ValueError, match="debias"):
            merging.ema(0.9, debias=True, warmup=True)
        with pytest.raises(ValueError, match="start"):
            merging.swa(start=-1)
        with pytest.raises(ValueError, match="every"):
            merging.swa(every=0)
        with pytest.raises(ValueError, match="size"):
            merging.lawa(0)
        with pytest.raises(ValueError, match="every"):
            merging.lawa(every=0)
        for average in (merging.ema(0.9), merging.swa(), merging.lawa(2)):
            state = average.init({"w": np.ones(2, np.float32)})
            with pytest.raises(ValueError, match=r"params: \['w'\] has shape"):
                average.update({"w": np.ones(3, np.float32)}, state)
