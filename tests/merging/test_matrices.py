"""TSV-M, isotropic merging and LoRA: limits, edges, numpy as jax, messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from jaxtricks import merging
from tests.free.common import as_users_see_it, assert_finite, mesh, put
from tests.free.merge import make_tree, make_trees

LEAVES = [
    (merging.tsv_leaf, {}),
    (merging.tsv_leaf, {"rank": "full"}),
    (merging.tsv_leaf, {"rank": 2}),
    (merging.iso_leaf, {}),
    (merging.iso_leaf, {"common": 0.5}),
    (merging.iso_leaf, {"common": 0.0}),
]
each_leaf = pytest.mark.parametrize(("leaf", "kwargs"), LEAVES)


def _matrices(*shape, n=3, seed=0):
    rng = np.random.default_rng((51, seed))
    base = rng.normal(size=shape).astype(np.float32)
    stack = base + 0.3 * rng.normal(size=(n, *shape)).astype(np.float32)
    return base, stack.astype(np.float32)


@each_leaf
@pytest.mark.parametrize("shape", [(4, 6), (7, 3), (1, 5), (), (5,), (0, 4), (2, 3, 4)])
def test_numpy_gives_what_jax_gives(leaf, kwargs, shape):
    base, stack = _matrices(*shape)
    want = leaf(base, stack, scale=0.7, **kwargs)
    assert isinstance(want, np.ndarray | np.generic)
    assert want.dtype == np.float32
    got = leaf(jnp.asarray(base), jnp.asarray(stack), scale=0.7, **kwargs)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


@each_leaf
def test_no_change_and_what_is_not_finite(leaf, kwargs):
    base, stack = _matrices(4, 6)
    same = np.stack([base] * 3)
    np.testing.assert_array_equal(leaf(base, same, **kwargs), base)
    stack[1, 2, 3] = np.nan
    assert np.isnan(leaf(base, stack, **kwargs)).any()


def test_one_model_merges_to_itself():
    base, stack = _matrices(4, 6, n=1)
    for rank in (None, "full"):
        got = merging.tsv_leaf(base, stack, rank=rank)
        np.testing.assert_allclose(got, stack[0], rtol=1e-5, atol=1e-6)


def test_changes_that_share_no_direction_add_up():
    base = np.zeros((6, 8), np.float32)
    rng = np.random.default_rng(5)
    stack = np.zeros((2, 6, 8), np.float32)
    stack[0, :3, :4] = rng.normal(size=(3, 4))
    stack[1, 3:, 4:] = rng.normal(size=(3, 4))
    want = stack.sum(axis=0)
    np.testing.assert_allclose(merging.tsv_leaf(base, stack), want, atol=1e-6)
    full = merging.tsv_leaf(base, stack, rank="full")
    np.testing.assert_allclose(full, want, atol=1e-6)


def test_isotropic_changes_have_equal_singular_values():
    base, stack = _matrices(5, 7)
    s = np.linalg.svd((stack - base).sum(axis=0), compute_uv=False)
    for common in (1.0, 0.4):
        change = merging.iso_leaf(base, stack, common=common) - base
        values = np.linalg.svd(change, compute_uv=False)
        np.testing.assert_allclose(values, values[0], rtol=1e-5)
        if common == 1.0:
            np.testing.assert_allclose(values, s.mean(), rtol=1e-5)


def test_derivatives_in_the_models():
    base, stack = map(jnp.asarray, _matrices(3, 4, n=2))
    for leaf in (merging.tsv_leaf, merging.iso_leaf):
        assert_finite(jax.grad(lambda x, f=leaf: jnp.sum(f(base, x) ** 2))(stack))
        same = jnp.stack([base, base])
        assert_finite(jax.grad(lambda x, f=leaf: jnp.sum(f(base, x) ** 2))(same))


def test_what_is_no_matrix_and_what_is_left_out_has_the_mean():
    base, trees = make_tree(0), make_trees()
    for merge in (merging.tsv, merging.iso):
        got = merge(base, trees, matrices={"layer": False, "scale": True, "steps": 1})
        want = sum(tree["layer"][0]["w"] for tree in trees) / 3
        np.testing.assert_allclose(got["layer"][0]["w"], want, rtol=1e-5, atol=1e-6)
        bias = sum(tree["layer"][0]["b"] for tree in trees) / 3
        got = merge(base, trees)["layer"][0]["b"]
        np.testing.assert_allclose(got, bias, rtol=1e-5, atol=1e-6)


def test_lora_there_and_back():
    base, tree = make_tree(0), make_tree(1)
    lora = merging.extract_lora(base, tree, rank=99)
    assert lora["steps"] is None
    assert lora["layer"][0]["b"] is None
    folded = merging.fold_lora(base, lora)
    got, want = folded["layer"][0]["w"], tree["layer"][0]["w"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert folded["layer"][0]["b"] is base["layer"][0]["b"]
    away = merging.fold_lora(folded, lora, scale=-1.0)
    np.testing.assert_allclose(
        away["layer"][0]["w"], base["layer"][0]["w"], rtol=1e-5, atol=1e-6
    )


def test_lora_is_the_nearest_of_its_rank():
    base, tree = make_tree(0), make_tree(1)
    change = np.float64(tree["layer"][0]["w"]) - np.float64(base["layer"][0]["w"])
    s = np.linalg.svd(change, compute_uv=False)
    lora = merging.extract_lora(base, tree, rank=2)["layer"][0]["w"]
    assert lora.a.shape == (4, 2)
    assert lora.b.shape == (2, 8)
    missed = np.linalg.norm(change - np.float64(lora.a @ lora.b))
    np.testing.assert_allclose(missed, np.linalg.norm(s[2:]), rtol=1e-5)
    cut = merging.extract_lora(base, tree, rank=4, eps=float(s[1:3].mean()))
    kept = np.abs(np.asarray(cut["layer"][0]["w"].a)).sum(axis=0) > 0
    assert list(kept) == [True, True, False, False]


def test_mistakes_are_named():
    base, trees = make_tree(0), make_trees()
    lora = merging.extract_lora(base, trees[0], rank=1)
    lora["layer"][0]["w"] = lora["layer"][1]["w"]
    with as_users_see_it():
        with pytest.raises(ValueError, match="rank"):
            merging.tsv(base, trees, rank=-1)
        with pytest.raises(ValueError, match="rank"):
            merging.tsv(base, trees, rank="half")
        with pytest.raises(ValueError, match="matrices"):
            merging.tsv(base, trees, matrices={"layers": True})
        with pytest.raises(ValueError, match=r"base: wanted shape \(3,\)"):
            merging.tsv_leaf(np.zeros(2), np.zeros((2, 3)))
        with pytest.raises(ValueError, match="rank"):
            merging.extract_lora(base, trees[0], rank=0)
        with pytest.raises(ValueError, match=r"lora: \['layer'\]\[0\]\['w'\]"):
            merging.fold_lora(base, lora)
        with pytest.raises(ValueError, match=r"\['scale'\] is missing"):
            merging.fold_lora(base, {"layer": lora["layer"], "steps": None})


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_matrices_that_are_sharded_are_compared(kind):
    base, stack = _matrices(4, 8, n=1)
    want = merging.singular_vector_alignment(base, stack[0])
    with jax.set_mesh(mesh(kind)):
        both = (put(x, kind, "data", "model") for x in (base, stack[0]))
        got = jax.jit(merging.singular_vector_alignment)(*both)
    np.testing.assert_allclose(got, want, rtol=1e-5)
