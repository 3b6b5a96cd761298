"""Fisher merging: limits, floors, and the diagonal against a sum over classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks import merging
from tests.free.common import as_users_see_it, assert_close, assert_finite, cast_floats
from tests.free.merge import floats, make_trees


def _fishers():
    return [jax.tree.map(lambda x: x * x, tree) for tree in make_trees()]


def test_equal_fishers_give_the_mean_and_equal_trees_themselves():
    trees = make_trees()
    assert_close(
        merging.fisher(trees, [trees[0]] * 3, floor=10.0), merging.linear(trees)
    )
    assert_close(merging.fisher([trees[0]] * 3, _fishers()), trees[0], rtol=1e-6)
    assert_close(merging.fisher(trees[:1], _fishers()[:1]), trees[0], rtol=1e-6)


def test_norms_are_divided_out():
    trees, fishers = make_trees(), _fishers()
    large = [cast_floats(fishers[0], jnp.float32), *fishers[1:]]
    large[0] = jax.tree.map(lambda x: 100 * x, large[0])
    got = merging.fisher(trees, large, floor=0.0, normalize=True)
    want = merging.fisher(trees, fishers, floor=0.0, normalize=True)
    assert_close(floats(got), floats(want), rtol=1e-5)


def test_first_favours_the_target():
    stack, nothing = np.float32([[1.0], [5.0]]), np.zeros((2, 1), np.float32)
    assert merging.fisher_leaf(stack, nothing, floors="first") == 1
    for floors in ("all", "add"):
        got = merging.fisher_leaf(stack, nothing, floors=floors)
        np.testing.assert_allclose(got, [3.0], rtol=1e-6)


def test_dtypes_and_derivatives():
    trees = [cast_floats(tree, jnp.bfloat16) for tree in make_trees()]
    got = merging.fisher(trees, _fishers())
    assert all(x.dtype == jnp.bfloat16 for x in floats(got))
    stack = jnp.ones((2, 3))
    grads = jax.grad(lambda f: jnp.sum(merging.fisher_leaf(stack, f)))(0 * stack)
    assert_finite(grads)


def _problem():
    rng = np.random.default_rng(61)
    params = {"w": jnp.asarray(rng.normal(size=(3, 4)), jnp.float32), "n": 3}
    x = jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)
    return params, x, lambda p, x: jnp.tanh(x @ p["w"]) * 2


def _by_hand(params, x, logits_fn, weights):
    total = 0.0
    for i in range(len(x)):
        for y in range(4):
            grad = jax.grad(
                lambda w, i=i, y=y: jax.nn.log_softmax(
                    logits_fn({"w": w}, x[i : i + 1])[0]
                )[y]
            )(params["w"])
            total = total + float(weights[i, y]) * np.square(np.float64(grad))
    return total / len(x)


def test_the_diagonal_is_the_mean_over_classes_and_examples():
    params, x, logits_fn = _problem()
    p = jax.nn.softmax(logits_fn(params, x))
    got = merging.fisher_diagonal(logits_fn, params, x)
    np.testing.assert_allclose(
        got["w"], _by_hand(params, x, logits_fn, p), rtol=1e-5, atol=1e-7
    )
    assert np.shape(got["n"]) == ()
    labels = jnp.array([0, 1, 2, 3, 1])
    got = merging.fisher_diagonal(logits_fn, params, x, labels=labels)
    want = _by_hand(params, x, logits_fn, jax.nn.one_hot(labels, 4))
    np.testing.assert_allclose(got["w"], want, rtol=1e-5, atol=1e-7)


def test_drawn_labels_are_right_on_average_and_masked_examples_do_not_count():
    params, x, logits_fn = _problem()
    want = merging.fisher_diagonal(logits_fn, params, x)["w"]
    many = jnp.concatenate([x] * 400)
    got = merging.fisher_diagonal(logits_fn, params, many, key=jax.random.key(0))
    np.testing.assert_allclose(got["w"], want, atol=0.15 * float(jnp.max(want)))
    holes = jnp.concatenate([x, jnp.full((2, 3), jnp.nan)])
    where = jnp.arange(7) < 5
    got = merging.fisher_diagonal(logits_fn, params, holes, where=where)
    np.testing.assert_allclose(got["w"], want, rtol=1e-6)
    none = merging.fisher_diagonal(logits_fn, params, x, where=jnp.zeros(5, bool))
    np.testing.assert_array_equal(none["w"], 0)


def test_mistakes_are_named():
    trees, fishers = make_trees(), _fishers()
    params, x, logits_fn = _problem()
    short = {k: v for k, v in fishers[1].items() if k != "steps"}
    key, labels = jax.random.key(0), jnp.zeros(5, int)
    with as_users_see_it():
        with pytest.raises(ValueError, match="trees"):
            merging.fisher([], [])
        with pytest.raises(ValueError, match="fishers: wanted 3"):
            merging.fisher(trees, fishers[:2])
        with pytest.raises(ValueError, match=r"fishers\[1\]: \['steps'\] is missing"):
            merging.fisher(trees, [fishers[0], short, fishers[2]])
        with pytest.raises(ValueError, match="floor: wanted >= 0"):
            merging.fisher_leaf(np.ones((2, 1)), np.ones((2, 1)), floor=-1e-6)
        with pytest.raises(ValueError, match="floors"):
            merging.fisher_leaf(np.ones((2, 1)), np.ones((2, 1)), floors="some")
        with pytest.raises(ValueError, match="fishers"):
            merging.fisher_leaf(np.ones((2, 1)), np.ones((2, 2)))
        with pytest.raises(ValueError, match="weights"):
            merging.fisher_leaf(np.ones((2, 1)), np.ones((2, 1)), weights=[1.0])
        with pytest.raises(ValueError, match="key"):
            merging.fisher_diagonal(logits_fn, params, x, labels=labels, key=key)
        with pytest.raises(ValueError, match="logits_fn"):
            merging.fisher_diagonal(lambda p, x: x[0], params, x)
