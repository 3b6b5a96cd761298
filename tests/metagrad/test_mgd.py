"""Metagradient descent: signs, masks, counts that know what once more would do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtricks.metagrad import key_points, mgd, relax_counts, scan
from tests.free.common import as_users_see_it, assert_close
from tests.inputs import rng
from tests.metagrad.asked import ask
from tests.metagrad.golden_data import POINTS

Z = rng(140).normal(size=8).astype(np.float32)
G = rng(141).normal(size=8).astype(np.float32)


def test_a_part_moves_by_one_and_counts_stay_counts():
    counts = np.arange(400, dtype=np.int32) % 3
    slopes = rng(142).normal(size=400).astype(np.float32)
    key = jax.random.key(0)
    run = jax.jit(lambda p: mgd(counts, slopes, p=p, key=key, low=0))
    got = run(0.25)
    assert got.dtype == jnp.int32
    moved = np.asarray(got) - counts
    free = (counts > 0) | (slopes < 0)
    assert set(moved[free].tolist()) == {-1, 0, 1}
    assert not moved[~free].any()
    assert (moved[moved != 0] == -np.sign(slopes[moved != 0])).all()
    assert abs((moved[free] != 0).mean() - 0.25) < 0.08
    assert_close(run(0.0), counts)
    assert_close(run(1.0), np.maximum(counts - np.sign(slopes), 0))


def test_trees_with_rates_of_their_own():
    z = {"a": Z, "b": {"c": Z[:3], "d": np.float32(2)}}
    g = {"a": G, "b": {"c": G[:3], "d": np.float32(-1)}}
    got = jax.jit(lambda rate: mgd(z, g, rate={"a": rate, "b": 0.5}))(0.1)
    assert_close(got["a"], Z - 0.1 * np.sign(G))
    assert_close(got["b"], {"c": Z[:3] - 0.5 * np.sign(G[:3]), "d": 2.5})


def test_a_zero_or_nan_gradient():
    got = mgd(Z[:3], np.array([0.0, np.nan, 2.0], np.float32))
    np.testing.assert_array_equal(got, [Z[0], np.nan, Z[2] - 1])


def test_steps_under_every_transformation():
    def f(z, g):
        moved = mgd(z, g, rate=0.1, low=-1.0)
        assert moved.dtype == z.dtype
        return moved.astype(jnp.float32)

    ask(f, Z, G, slopes=False)
    by_g = jax.grad(lambda g: jnp.sum(mgd(Z, g, rate=0.1)))(G)
    assert not np.any(by_g)
    by_rate = jax.grad(lambda rate: jnp.sum(mgd(Z, G, rate=rate)))(0.1)
    assert_close(by_rate, -np.sum(np.sign(G)))


def test_points_under_every_transformation():
    def f(values, step):
        return key_points(values, total_steps=50)(step)[None]

    ask(f, rng(143).normal(size=8).astype(np.float32), np.float32(17.3), bf16=0.1)


def test_a_schedule_works_in_optax_and_learns():
    """Its meta-gradient through SGD on a quadratic, in closed form: one step at rate r
    multiplies w by 1 - r."""

    def train(values):
        rate = key_points(values, total_steps=4)
        tx = optax.sgd(rate)

        def step(carry, _):
            w, state = carry
            updates, state = tx.update(w, state, w)
            return (w + updates, state), None

        return scan(step, (jnp.float32(1), tx.init(jnp.float32(1))), length=4)[0][0]

    values = jnp.array([0.1, 0.4, 0.2])
    rates = np.interp(np.arange(4), [0, 2, 4], values)
    hats = np.array([np.interp(np.arange(4), [0, 2, 4], row) for row in np.eye(3)])
    left = np.prod(1 - rates)
    got, by = jax.jit(jax.value_and_grad(train))(values)
    assert_close(got, left)
    assert_close(by, -left * hats @ (1 / (1 - rates)), rtol=1e-5)


# --- counts ---------------------------------------------------------------------------

DATA = rng(144).normal(size=(6, 2)).astype(np.float32)
COUNTS = np.array([2, 0, 1, 3, 0, 1])


def finished(copies, z=None, at=2):
    """Full-batch descent on a multiset of quadratics; how far from (1, 1) it ends."""

    def losses(w):
        return jnp.sum((w[None] - jnp.asarray(DATA)) ** 2, axis=-1) / 7

    def loss(w, counts):
        return jnp.sum(counts * losses(w))

    relaxed = relax_counts(loss, losses, at=at)
    none = jnp.zeros(6, DATA.dtype) if z is None else z

    def step(w, t):
        counts = copies[t] if copies.ndim == 2 else copies
        return w - 0.3 * jax.grad(relaxed)(w, counts, t, none), None

    w, _ = scan(step, jnp.zeros(2), jnp.arange(5))
    return jnp.sum((w - 1) ** 2)


def test_zero_weights_change_nothing_and_slopes_are_those_of_copies():
    counts = COUNTS.astype(np.float32)
    plain = jax.jit(finished)(counts)
    assert_close(finished(counts, jnp.zeros(6), at=np.array([1, 3])), plain)
    # At every step, once more of an example is its count's own derivative.
    by_z = jax.jit(jax.grad(lambda z: finished(counts, z, at=np.arange(5))))
    by_counts = jax.jit(jax.grad(finished))(counts)
    assert_close(by_z(jnp.zeros(6)), by_counts, rtol=1e-5)
    # At one step, that of this step's count.
    table = np.tile(counts, (5, 1))
    by_table = jax.jit(jax.grad(finished))(table)
    by_z = jax.jit(jax.grad(lambda z: finished(counts, z, at=2)))
    assert_close(by_z(jnp.zeros(6)), by_table[2], rtol=1e-5)


def test_a_relaxed_run_under_every_transformation():
    def f(z, counts):
        return finished(counts, z)[None]

    small = 0.01 * rng(145).normal(size=6).astype(np.float32)
    ask(f, small, COUNTS.astype(np.float32), bf16=0.05, split=None)


def test_counts_that_follow_the_signs_train_better():
    def slopes(counts):
        return jax.grad(lambda z: finished(counts, z, at=np.arange(5)))(jnp.zeros(6))

    def step(counts, key):
        grads = slopes(counts)
        counts = mgd(counts, grads, p=0.5, key=key, low=0, high=4)
        return counts, finished(counts)

    keys = jax.random.split(jax.random.key(1), 20)
    start = jnp.asarray(COUNTS, jnp.float32)
    counts, distances = jax.jit(lambda: jax.lax.scan(step, start, keys))()
    assert float(distances[-5:].max()) < 0.5 * float(finished(start))
    assert float(counts.min()) >= 0


def test_bad_input():
    with as_users_see_it():
        for kwargs, said in (
            ({"p": 1.5}, "p: wanted in"),
            ({"rate": -1}, "rate: wanted >= 0"),
            ({"p": 0.5}, "key: wanted one, as p is 0.5"),
        ):
            with pytest.raises(ValueError, match=said):
                mgd(Z, G, **kwargs)
        with pytest.raises(ValueError, match="grads: wanted them like z"):
            mgd(Z, G[:3])
        with pytest.raises(ValueError, match="at: wanted >= 0"):
            relax_counts(lambda w, x: w, lambda w: w, at=-1)
        with pytest.raises(ValueError, match="total_steps: wanted > 0"):
            key_points(POINTS, total_steps=0)
        with pytest.raises(ValueError, match=r"values: wanted f\[points\]"):
            key_points(np.float32(1), total_steps=3)
