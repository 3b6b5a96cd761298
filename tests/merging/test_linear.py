"""Averages beyond the free checks: leaves, coefficients, containers, exclusions."""

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtricks import merging
from tests.free.common import as_users_see_it, assert_close
from tests.free.merge import make_trees

STACK = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)
WEIGHTS = [0.5, -1.0, 2.0]


def oracle(weights, normalize):
    w = np.float64(weights)
    total = np.tensordot(w, np.float64(STACK), 1)
    return total / w.sum() if normalize else total


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("kind", [list, tuple, np.array, jnp.array])
def test_leaf_is_the_weighted_sum(normalize, kind):
    got = merging.linear_leaf(STACK, weights=kind(WEIGHTS), normalize=normalize)
    np.testing.assert_allclose(got, oracle(WEIGHTS, normalize), rtol=2e-6)


def test_weights_default_to_one_and_may_be_integers():
    np.testing.assert_allclose(
        merging.linear_leaf(STACK), oracle([1, 1, 1], True), rtol=2e-6
    )
    np.testing.assert_allclose(
        merging.linear_leaf(STACK, weights=[2, 1, 0]),
        oracle([2, 1, 0], True),
        rtol=2e-6,
    )


def test_a_list_of_traced_weights():
    slope = jax.grad(
        lambda a: merging.linear_leaf(STACK, weights=[a, 1.0, 2.0], normalize=False)[
            0, 0
        ]
    )(0.3)
    np.testing.assert_allclose(slope, STACK[0, 0, 0], rtol=1e-6)


def test_low_precision_is_summed_in_f32():
    """256 + 1 is 256 in bf16: a mean of many must not be built there."""
    trees = [jnp.asarray([x], jnp.bfloat16) for x in [256.0] + [1.0] * 255]
    assert merging.linear(trees)[0] == jnp.bfloat16(511 / 256)


def test_what_is_not_merged_is_the_first_trees():
    key = jax.random.key(0)
    trees = [
        {"w": jnp.ones(2) * i, "count": jnp.int32(i), "key": key, "none": None}
        for i in (1, 2)
    ]
    got = merging.linear(trees)
    np.testing.assert_array_equal(got["w"], 1.5)
    assert got["count"] == 1
    assert got["key"] is key
    assert got["none"] is None


def test_where_is_a_prefix_tree_of_bools():
    trees = make_trees()
    trees[1]["layer"][0]["b"] = jnp.full(8, jnp.nan)
    where = {"layer": [{"w": True, "b": False}, True], "scale": False, "steps": True}
    got, everything = merging.linear(trees, where=where), merging.linear(trees)
    assert_close(got["layer"][0]["w"], everything["layer"][0]["w"])
    assert_close(got["layer"][1], everything["layer"][1])
    assert got["layer"][0]["b"] is trees[0]["layer"][0]["b"]
    assert got["scale"] is trees[0]["scale"]
    with as_users_see_it(), pytest.raises(ValueError, match="where"):
        merging.linear(trees, where={"layer": True})


def test_containers_of_other_libraries():
    states = [nnx.state(nnx.Linear(3, 2, rngs=nnx.Rngs(i))) for i in range(2)]
    got = merging.linear(states)
    want = (states[0]["kernel"][...] + states[1]["kernel"][...]) / 2
    np.testing.assert_allclose(got["kernel"][...], want, rtol=1e-6)
    models = [eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(i)) for i in range(2)]
    got = merging.linear([eqx.filter(m, eqx.is_array) for m in models])
    want = (models[0].layers[0].weight + models[1].layers[0].weight) / 2
    np.testing.assert_allclose(got.layers[0].weight, want, rtol=1e-6)


def test_names_load_late():
    """A tool that merges files with numpy must not pay for jax."""
    code = (
        "import sys; import jaxtricks.merging as m; assert 'jax' not in sys.modules; "
        "assert 'linear' in dir(m); m.linear_leaf; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'slurp'"):
        merging.slurp  # noqa: B018
