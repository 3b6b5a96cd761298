"""RegMean: its least squares, its limits, layouts, and messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks import merging
from tests.free.common import as_users_see_it, assert_close, assert_finite


def _layers(n=3, rows=20):
    rng = np.random.default_rng(71)
    kernels = rng.normal(size=(n, 4, 6)).astype(np.float32)
    inputs = rng.normal(size=(n, rows, 4)).astype(np.float32)
    grams = np.stack([x.T @ x / rows for x in inputs])
    return kernels, inputs, grams


def test_it_solves_the_least_squares_of_all_models():
    kernels, inputs, grams = _layers()
    outputs = np.concatenate(inputs @ kernels)
    want = np.linalg.lstsq(np.concatenate(inputs), outputs, rcond=None)[0]
    got = merging.regmean_leaf(kernels, grams, alpha=1.0)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    assert isinstance(got, np.ndarray)
    assert got.dtype == np.float32
    on_jax = merging.regmean_leaf(jnp.asarray(kernels), jnp.asarray(grams), alpha=1.0)
    np.testing.assert_allclose(on_jax, got, rtol=1e-4, atol=1e-5)


def test_limits():
    kernels, _, grams = _layers()
    same = np.stack([kernels[0]] * 3)
    np.testing.assert_allclose(merging.regmean_leaf(same, grams), kernels[0], rtol=1e-5)
    equal = np.stack([grams[0]] * 3)
    mean = kernels.mean(axis=0)
    got = merging.regmean_leaf(kernels, equal)
    np.testing.assert_allclose(got, mean, rtol=1e-4, atol=1e-6)
    none = merging.regmean_leaf(kernels, 0 * grams)
    np.testing.assert_allclose(none, mean, rtol=1e-6)
    diagonal = merging.regmean_leaf(kernels, grams, alpha=0.0)
    weights = np.stack([np.diag(g) for g in grams])[:, :, None]
    want = (weights * kernels).sum(axis=0) / weights.sum(axis=0)
    np.testing.assert_allclose(diagonal, want, rtol=1e-4, atol=1e-6)


def test_directions_without_inputs_have_the_mean():
    kernels, _, grams = _layers()
    grams[:, 3], grams[:, :, 3] = 0, 0
    got = merging.regmean_leaf(kernels, grams)
    np.testing.assert_allclose(got[3], kernels[:, 3].mean(axis=0), rtol=1e-5)
    want = merging.regmean_leaf(kernels[:, :3], grams[:, :3, :3])
    np.testing.assert_allclose(got[:3], want, rtol=1e-4, atol=1e-5)


def test_layouts():
    kernels, _, grams = _layers()
    want = merging.regmean_leaf(kernels, grams)
    turned = merging.regmean_leaf(kernels.swapaxes(1, 2), grams, inputs="last")
    np.testing.assert_allclose(turned.T, want, rtol=1e-6)
    wide = merging.regmean_leaf(kernels.reshape(3, 2, 2, 3, 2), grams)
    np.testing.assert_allclose(wide.reshape(4, 6), want, rtol=1e-6)


def test_trees_average_what_has_no_gram():
    kernels, inputs, grams = _layers()
    trees = [{"w": jnp.asarray(k), "b": jnp.ones(6) * i} for i, k in enumerate(kernels)]
    beside = [{"w": merging.gram(jnp.asarray(x)), "b": None} for x in inputs]
    got = jax.jit(lambda t, a: merging.regmean(t, beside, alpha=a))(trees, 0.5)
    want = merging.regmean_leaf(kernels, grams, alpha=0.5)
    np.testing.assert_allclose(got["w"], want, rtol=1e-4, atol=1e-5)
    assert_close(got["b"], jnp.ones(6))
    slope = jax.grad(lambda a: jnp.sum(merging.regmean(trees, beside, alpha=a)["w"]))
    assert_finite(slope(0.5))


def test_gram_counts_live_rows():
    x = np.random.default_rng(72).normal(size=(2, 5, 3)).astype(np.float32)
    where = np.arange(5)[None] < np.array([[5], [2]])
    live = x[where]
    x[~where] = np.nan
    got = merging.gram(jnp.asarray(x), where=jnp.asarray(where))
    np.testing.assert_allclose(got, live.T @ live / 7, rtol=1e-5)
    assert_close(merging.gram(jnp.ones((0, 2))), jnp.zeros((2, 2)))


def test_mistakes_are_named():
    kernels, _, grams = _layers()
    trees = [{"w": jnp.asarray(k)} for k in kernels]
    beside = [{"w": jnp.asarray(g)} for g in grams]
    with as_users_see_it():
        with pytest.raises(ValueError, match="trees"):
            merging.regmean([], [])
        with pytest.raises(ValueError, match="grams: wanted 3"):
            merging.regmean(trees, beside[:1])
        with pytest.raises(ValueError, match="grams"):
            merging.regmean(trees, [*beside[:2], {"w": None}])
        with pytest.raises(ValueError, match=r"grams\[2\]"):
            merging.regmean(trees, [*beside[:2], {"v": None}])
        with pytest.raises(ValueError, match="grams"):
            merging.regmean_leaf(kernels, grams[:, :3, :3])
        with pytest.raises(ValueError, match="alpha: wanted in"):
            merging.regmean_leaf(kernels, grams, alpha=1.5)
        with pytest.raises(ValueError, match="inputs"):
            merging.regmean_leaf(kernels, grams, inputs="middle")
