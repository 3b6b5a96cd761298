"""DARE and DELLA: masks, keys, chances and what they keep on average."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks import merging
from jaxtricks.merging._sparsify import chances
from tests.free.common import as_users_see_it, assert_close
from tests.free.merge import floats, make_tree, make_trees

BASE, TREES = make_tree(0), make_trees()
KEY = jax.random.key
both = pytest.mark.parametrize("merge", [merging.dare, merging.della])
both_leaves = pytest.mark.parametrize("leaf", [merging.dare_leaf, merging.della_leaf])


def ones(tree):
    return jax.tree.map(lambda x: np.ones(np.shape(x), bool), tree)


@both
def test_a_density_of_one_keeps_all_and_of_zero_none(merge):
    whole = merge(BASE, TREES, density=1.0, key=KEY(0), consensus="linear")
    if merge is merging.dare:
        assert_close(whole, merging.task_arithmetic(BASE, TREES))
    else:
        assert_close(whole, merging.task_arithmetic(BASE, TREES, normalize=True))
    assert_close(merge(BASE, TREES, density=0.0, key=KEY(0)), BASE)


@both
def test_the_key_decides_leaf_by_leaf(merge):
    run = jax.jit(lambda key: merge(BASE, TREES, density=0.5, key=key))
    assert_close(run(KEY(1)), run(KEY(1)), rtol=0)
    one, two = run(KEY(1)), run(KEY(2))
    assert not np.allclose(one["layer"][0]["w"], two["layer"][0]["w"])
    same = {"a": jnp.zeros((9, 9)), "b": jnp.zeros((9, 9))}
    changed = {"a": jnp.ones((9, 9)), "b": jnp.ones((9, 9))}
    got = merge(same, [changed], density=0.5, key=KEY(3))
    assert not np.allclose(got["a"], got["b"])


@both
def test_a_mask_in_place_of_chance(merge):
    mask = [ones(BASE) for _ in TREES]
    mask[1]["layer"][0]["w"][:] = False
    got = merge(
        BASE,
        TREES,
        density=0.5,
        mask=mask,
        rescale=None,
        consensus="linear",
        normalize=False,
    )
    left = [TREES[0], TREES[2]]
    w = [t["layer"][0]["w"] for t in (BASE, *left)]
    assert_close(got["layer"][0]["w"], merging.task_arithmetic(w[0], w[1:]))
    b = [t["layer"][0]["b"] for t in (BASE, *TREES)]
    assert_close(got["layer"][0]["b"], merging.task_arithmetic(b[0], b[1:]))


def test_dare_is_right_on_average():
    x = np.float32([[1.0, -2.0]]).repeat(20_000, axis=0)[None]
    base = 0 * x[0]
    for key in (KEY(0), np.random.default_rng(0)):
        got = merging.dare_leaf(base, x, density=0.25, key=key)
        # Five standard errors of a mean of 20 000.
        np.testing.assert_allclose(np.mean(got, 0), [1, -2], atol=2 * 0.062)
        assert set(np.unique(got)) == {-8.0, 0.0, 4.0}


def test_l1_restores_the_sum_of_magnitudes():
    x = np.random.default_rng(0).normal(size=(3, 6, 5)).astype(np.float32)
    mask = np.random.default_rng(1).random(x.shape) < 0.4
    for i in range(3):
        weights = [float(i == j) for j in range(3)]
        got = merging.dare_leaf(
            0 * x[0], x, density=0.4, mask=mask, rescale="l1", weights=weights
        )
        np.testing.assert_allclose(np.abs(got).sum(), np.abs(x[i]).sum(), rtol=1e-5)
        np.testing.assert_array_equal(got != 0, mask[i])


def test_chances_follow_the_ranks_of_each_row():
    stack = np.float64([[[3, -1, 2], [0.5, -7, 6]]])
    p = chances(np, stack, np.array([0.5]), np.array([0.2]))
    np.testing.assert_allclose(p, [[[0.7, 0.3, 0.5], [0.3, 0.7, 0.5]]])
    traced = chances(jnp, jnp.asarray(stack), jnp.array([0.5]), jnp.array([0.2]))
    np.testing.assert_allclose(p, traced, rtol=1e-6)
    vector = chances(np, stack[:, 0], np.array([0.5]), np.array([0.2]))
    np.testing.assert_allclose(vector, [[0.7, 0.3, 0.5]])
    for single in (stack[:, 0, 0], stack[:, :1, :1]):
        np.testing.assert_array_equal(
            chances(np, single, np.array([0.5]), np.array([0.2])), 0 * single + 0.5
        )
    for end in (0.0, 1.0):
        np.testing.assert_array_equal(
            chances(np, stack, np.array([end]), np.array([0.2])), 0 * stack + end
        )


@both_leaves
@pytest.mark.parametrize("shape", [(), (1,), (7,), (4, 5), (2, 3, 4), (0, 3)], ids=str)
def test_numpy_equals_jax(leaf, shape):
    rng = np.random.default_rng(0)
    base, stack = rng.normal(size=shape), rng.normal(size=(3, *shape))
    base, stack = np.float32(base), np.float32(stack)
    kwargs = {"density": [0.5, 0.6, 0.7], "mask": rng.random(stack.shape) < 0.5}
    for rescale in ("1/p", "l1"):

        def run(base, stack, rescale=rescale):
            return leaf(base, stack, rescale=rescale, consensus="ties", **kwargs)

        got, want = run(base, stack), jax.jit(run)(base, stack)
        assert (got.shape, got.dtype) == (shape, np.float32)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6)


@both
def test_gradients_and_vmap(merge):
    def objective(scale, weights):
        merged = merge(
            BASE, TREES, density=0.5, key=KEY(0), scale=scale, weights=weights
        )
        return sum(jnp.sum(jnp.square(x)) for x in floats(merged))

    weights = jnp.array([0.5, 1.0, 0.25])
    grads = jax.jit(jax.grad(objective, (0, 1)))(0.7, weights)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(grads))
    scales = jnp.array([0.0, 0.7])
    values = jax.jit(jax.vmap(objective, (0, None)))(scales, weights)
    np.testing.assert_allclose(values[1], objective(0.7, weights), rtol=1e-5)


@both
def test_mistakes_are_named(merge):
    good = {"density": 0.5, "key": KEY(0)}
    for wrong, name in (
        ({"key": None}, "key: wanted a key or a mask, came neither"),
        ({"mask": [ones(BASE)] * 3}, "key: wanted a key or a mask, came both"),
        ({"density": 1.5}, "density: wanted in"),
        ({"density": [0.5]}, "density: wanted"),
        ({"weights": [1.0]}, "weights: wanted"),
        ({"key": None, "mask": [ones(BASE)]}, "mask: wanted 3 trees"),
        (
            {
                "key": None,
                "mask": [{**ones(BASE), "scale": np.ones(2, bool)}] * 3,
            },
            r"mask\[0\].*scale",
        ),
        ({"rescale": "l2"}, "rescale: wanted"),
        ({"consensus": "mean"}, "consensus: wanted"),
    ):
        with as_users_see_it(), pytest.raises(ValueError, match=name):
            merge(BASE, TREES, **{**good, **wrong})
    with as_users_see_it(), pytest.raises(ValueError, match="trees"):
        merge(BASE, [], **good)


def test_chances_stay_within_0_and_1():
    for wrong in ({"density": 0.1}, {"density": [0.5, 0.5, 0.9]}, {"epsilon": -0.1}):
        with as_users_see_it(), pytest.raises(ValueError, match="epsilon"):
            merging.della(BASE, TREES, **{"density": 0.5, "key": KEY(0), **wrong})


def test_a_leafs_mask_has_its_shape():
    with as_users_see_it(), pytest.raises(ValueError, match="mask: wanted shape"):
        merging.dare_leaf(
            np.zeros(3), np.zeros((2, 3)), density=0.5, mask=np.ones((1, 3), bool)
        )
