"""Robust weight signatures: orthogonality, on and off, norms, messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks import merging
from tests.free.common import as_users_see_it, assert_close, assert_finite
from tests.free.merge import floats, make_tree


def _signature(**kwargs):
    return merging.robust_weight_signature(*map(make_tree, range(3)), **kwargs)


def test_it_is_orthogonal_to_the_clean_change_in_every_leaf():
    base, clean, robust = map(make_tree, range(3))
    for v, b, c, r in zip(
        *map(floats, (_signature(), base, clean, robust)), strict=True
    ):
        assert abs(float(jnp.sum(v * (c - b)))) < 1e-5 * float(jnp.sum((c - b) ** 2))
        a, rest = np.float64(c) - b, np.float64(r) - b - np.float64(v)
        along = np.sum(rest * a) / np.sum(a * a)  # what is removed is along the change
        np.testing.assert_allclose(rest, along * a, atol=1e-5)


def test_limits():
    base, clean = make_tree(0), make_tree(1)
    twice = jax.tree.map(lambda b, c: 2 * c - b, base, clean)
    along = merging.robust_weight_signature(base, clean, twice)
    for leaf in floats(along):
        np.testing.assert_allclose(leaf, 0, atol=1e-5)
    still = merging.robust_weight_signature(base, base, clean)
    want = merging.task_vector(base, clean)
    assert_close(floats(still), floats(want), rtol=1e-6)


def test_on_and_off_again():
    target, signatures = make_tree(5), [_signature()] * 2
    assert_close(merging.patch_weights(target, signatures, weights=[0, 0]), target)
    on = jax.jit(merging.patch_weights)(target, signatures, weights=[0.5, 0.25])
    off = merging.patch_weights(on, signatures, weights=[-0.5, -0.25])
    for a, b in zip(*map(floats, (off, target)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    mean = merging.patch_weights(target, signatures)
    half = merging.patch_weights(target, signatures, weights=[0.5, 0.5])
    assert_close(floats(mean), floats(half))


def test_layers_and_norms():
    where = {"layer": [True, False], "scale": False, "steps": False}
    signature = _signature(where=where)
    assert_close(signature["layer"][1]["w"], jnp.zeros((8, 2)))
    assert_close(signature["layer"][0], _signature()["layer"][0])
    target, models = make_tree(5), [make_tree(6), make_tree(7)]
    got = merging.patch_weights(
        target,
        [signature] * 2,
        replace={"layer": False, "scale": True, "steps": False},
        models=models,
    )
    mean = (models[0]["scale"] + models[1]["scale"]) / 2
    assert_close(got["scale"], mean, rtol=1e-6)
    assert_close(got["layer"][1], target["layer"][1])


def test_derivatives_where_nothing_was_learned():
    def size(clean):
        v = merging.robust_weight_signature(jnp.ones(3), clean, jnp.arange(3.0))
        return jnp.sum(v**2)

    assert_finite(jax.grad(size)(jnp.ones(3)))
    assert_finite(jax.hessian(size)(jnp.ones(3)))


def test_mistakes_are_named():
    base, tree = make_tree(0), make_tree(1)
    short = {k: v for k, v in tree.items() if k != "scale"}
    with as_users_see_it():
        with pytest.raises(ValueError, match=r"robust: \['scale'\]"):
            merging.robust_weight_signature(base, tree, short)
        with pytest.raises(ValueError, match=r"signatures\[0\]: \['scale'\]"):
            merging.patch_weights(base, [short])
        with pytest.raises(ValueError, match="signatures"):
            merging.patch_weights(base, [])
        with pytest.raises(ValueError, match="weights"):
            merging.patch_weights(base, [tree], weights=[1.0, 2.0])
        with pytest.raises(ValueError, match="models: wanted 1"):
            merging.patch_weights(base, [tree], replace=True)
