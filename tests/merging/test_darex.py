"""DAREx-q: masks, rescaling, its limits, and the choice of q."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks import merging
from tests.free.common import as_users_see_it, assert_close, assert_finite, cast_floats
from tests.free.merge import floats, make_tree

KEY = jax.random.key(3)


def _mask(base, seed=0):
    rng = np.random.default_rng((91, seed))
    return jax.tree.map(lambda x: jnp.asarray(rng.random(np.shape(x)) < 0.5), base)


def test_limits():
    base, tree = make_tree(0), make_tree(1)
    for density in (1.0, jnp.float32(1)):
        assert_close(merging.darex_q(base, tree, density=density, key=KEY), tree)
    for density in (0.0, jnp.float32(0)):
        assert_close(merging.darex_q(base, tree, density=density, key=KEY), base)


def test_a_mask_is_kept_and_rescaled():
    base, tree = make_tree(0), make_tree(1)
    mask = _mask(base)
    run = jax.jit(lambda q: merging.darex_q(base, tree, density=0.5, q=q, mask=mask))
    for got, b, t, m in zip(
        *map(floats, (run(0.8), base, tree)), _live(mask), strict=True
    ):
        want = np.where(m, np.float64(b) + (np.float64(t) - b) / 0.8, b)
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-6)
    dare = merging.darex_q(base, tree, density=0.5, mask=mask)
    assert_close(floats(run(0.5)), floats(dare), rtol=1e-6)


def _live(mask):
    return [
        mask["layer"][0]["b"],
        mask["layer"][0]["w"],
        mask["layer"][1]["w"],
        mask["scale"],
    ]


def test_a_q_for_each_layer():
    base, tree = make_tree(0), make_tree(1)
    mask = _mask(base)
    q = {"layer": [0.5, 0.7], "scale": 0.9, "steps": 1.0}
    got = merging.darex_q(base, tree, density=0.5, q=q, mask=mask)
    for i, value in enumerate(q["layer"]):
        want = merging.darex_q(base, tree, density=0.5, q=value, mask=mask)
        assert_close(got["layer"][i], want["layer"][i])


def test_the_mean_over_masks_is_the_tree():
    base, tree = jnp.zeros(4), jnp.array([1.0, -2.0, 3.0, 0.5])
    keys = jax.random.split(KEY, 4000)
    draws = jax.vmap(lambda k: merging.darex_q(base, tree, density=0.3, key=k))(keys)
    sigma = np.abs(tree) * np.sqrt(0.7 / 0.3 / 4000)
    assert np.all(np.abs(np.mean(draws, axis=0) - tree) < 4 * sigma)
    twice = {"a": jnp.ones(64), "b": jnp.ones(64)}
    zeros = jax.tree.map(jnp.zeros_like, twice)
    drawn = merging.darex_q(zeros, twice, density=0.5, key=KEY)
    assert not np.array_equal(drawn["a"], drawn["b"])


def test_dtypes_where_and_derivatives():
    base, tree = make_tree(0), make_tree(1)
    low = cast_floats(tree, jnp.bfloat16)
    got = merging.darex_q(base, low, density=0.5, key=KEY)
    assert all(x.dtype == jnp.bfloat16 for x in floats(got))
    assert got["steps"] is low["steps"]
    where = {"layer": False, "scale": True, "steps": True}
    got = merging.darex_q(base, tree, density=0.5, key=KEY, where=where)
    assert got["layer"][0]["w"] is tree["layer"][0]["w"]

    def loss(q):
        merged = merging.darex_q(base, tree, density=0.5, q=q, mask=_mask(base))
        return jnp.sum(merged["layer"][0]["w"] ** 2)

    assert_finite(jax.grad(loss)(0.6))


def _rows(c, p, eta, gamma, enough):
    """The release's scan, a q at a time, in f64."""
    best, q_of = np.full(len(c), 1e4), np.full(len(c), 1 - p)
    stopped = np.zeros(len(c), bool)
    phi = (1 - 2 * p) / np.log((1 - p) / p)
    for number in range(int((1 - p) * 1000), 999):
        q = number * 0.001
        spread = eta**2 * phi * (c**2).sum(axis=1) / (4 * q**2)
        miss = eta * (1 - (1 - p) / q) * c.sum(axis=1) + spread
        miss = np.abs(miss + np.log(2 / (1 - gamma)))
        better, worse = miss <= best, miss >= best
        best[better], q_of[better] = miss[better], q
        stopped |= worse
        if stopped.mean() >= enough:
            break
    return q_of.mean()


@pytest.mark.parametrize(
    ("density", "eta", "gamma", "enough"),
    [(0.01, 0.45, 0.95, 0.8), (0.05, 1.5, 0.5, 1.0), (0.1, 0.45, 0.95, 0.8)],
)
def test_the_scan_is_followed(density, eta, gamma, enough):
    c = np.random.default_rng(92).normal(size=(16, 40)) * 2
    got = merging.darex_rescale(
        jnp.asarray(c, jnp.float32),
        density=density,
        eta=eta,
        gamma=gamma,
        enough=enough,
    )
    want = _rows(c, 1 - density, eta, gamma, enough)
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_q_at_the_ends():
    c = jnp.ones((2, 3))
    for density in (0.0, 0.0001, 0.5, 0.998, 0.999, 1.0):
        q = float(merging.darex_rescale(c, density=density))
        assert np.isfinite(q)
        assert q >= min(density, 1) - 2e-3


def test_mistakes_are_named():
    base, tree = make_tree(0), make_tree(1)
    mask = {k: v for k, v in _mask(base).items() if k != "scale"}
    short = {k: v for k, v in tree.items() if k != "scale"}
    with as_users_see_it():
        with pytest.raises(ValueError, match=r"mask: .*neither"):
            merging.darex_q(base, tree, density=0.5)
        with pytest.raises(ValueError, match=r"mask: .*both"):
            merging.darex_q(base, tree, density=0.5, mask=_mask(base), key=KEY)
        with pytest.raises(ValueError, match="density"):
            merging.darex_q(base, tree, density=1.5, key=KEY)
        with pytest.raises(ValueError, match=r"mask: \['scale'\] is missing"):
            merging.darex_q(base, tree, density=0.5, mask=mask)
        with pytest.raises(ValueError, match=r"tree: \['scale'\] is missing"):
            merging.darex_q(base, short, density=0.5, key=KEY)
        for name in ("density", "gamma", "enough"):
            with pytest.raises(ValueError, match=name):
                merging.darex_rescale(jnp.ones((1, 1)), **{"density": 0.1, name: 1.1})
