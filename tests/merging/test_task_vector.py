"""Task vectors: there and back, forgetting, analogies, and what is not merged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks import merging
from tests.free.common import as_users_see_it, assert_close, cast_floats
from tests.free.merge import floats, make_tree, make_trees


def test_there_and_back():
    base, tree = make_tree(0), make_tree(1)
    vector = merging.task_vector(base, tree)
    assert_close(merging.add_task_vectors(base, [vector]), tree)
    assert_close(
        floats(vector), [a - b for a, b in zip(floats(tree), floats(base), strict=True)]
    )


def test_dtypes_are_those_of_the_tree():
    base = cast_floats(make_tree(0), jnp.bfloat16)
    vector = merging.task_vector(base, make_tree(1))
    assert all(x.dtype == jnp.float32 for x in floats(vector))
    assert all(
        x.dtype == jnp.bfloat16
        for x in floats(merging.add_task_vectors(base, [vector]))
    )
    assert vector["steps"] == 7


def test_sum_with_weights_and_scale():
    base, trees = make_tree(0), make_trees()
    vectors = [merging.task_vector(base, t) for t in trees]
    weights = np.float32([1.0, -0.5, 2.0])
    f = jax.jit(
        lambda w, s: merging.add_task_vectors(base, vectors, weights=w, scale=s)
    )
    got = f(weights, 0.4)
    for b, x, *taus in zip(*map(floats, [base, got, *vectors]), strict=True):
        want = np.float64(b) + 0.4 * sum(
            w * np.float64(t) for w, t in zip(weights, taus, strict=True)
        )
        np.testing.assert_allclose(x, want, rtol=2e-6, atol=2e-6)
    assert_close(f(weights, 0.0), base)
    assert_close(f(np.zeros(3, np.float32), 0.4), base)


def test_forgetting_is_the_opposite_of_learning():
    base, tree = make_tree(0), make_tree(1)
    vector = merging.task_vector(base, tree)
    forgot = merging.add_task_vectors(base, [vector], scale=-1.0)
    assert_close(merging.task_vector(forgot, base), vector, rtol=2e-6)


def test_where_and_integers_stay_the_bases():
    base, tree = make_tree(0), make_tree(1)
    vector = merging.task_vector(base, tree)
    where = {"layer": False, "scale": True, "steps": True}
    got = merging.add_task_vectors(base, [vector], where=where)
    assert got["layer"][0]["w"] is base["layer"][0]["w"]
    assert got["steps"] is base["steps"]
    assert_close(got["scale"], tree["scale"])


def test_mistakes_are_named():
    base, tree = make_tree(0), make_tree(1)
    short = {**tree, "layer": tree["layer"][:1]}
    with as_users_see_it():
        with pytest.raises(
            ValueError, match=r"tree: \['layer'\]\[1\]\['w'\] is missing"
        ):
            merging.task_vector(base, short)
        with pytest.raises(ValueError, match=r"vectors\[1\]: \['layer'\]\[1\]\['w'\]"):
            merging.add_task_vectors(base, [tree, short])
        with pytest.raises(ValueError, match="vectors"):
            merging.add_task_vectors(base, [])
        with pytest.raises(
            ValueError, match=r"weights: wanted shape \(1,\), came \(2,\)"
        ):
            merging.add_task_vectors(base, [tree], weights=[1.0, 2.0])
