"""Greedy soups, metric weights, assembled modules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks import merging
from tests.free.common import as_users_see_it, assert_close
from tests.free.merge import floats, make_tree, make_trees


def _near(target):
    def score(tree):
        pairs = zip(floats(tree), floats(target), strict=True)
        return -sum(float(jnp.sum((a - b) ** 2)) for a, b in pairs)

    return score


def test_what_helps_goes_in():
    good, bad = make_trees()[:2], make_tree(9)
    target = merging.linear(good)
    soup = merging.greedy_soup([bad, *good], _near(target))
    assert sorted(soup.chosen) == [1, 2]
    assert_close(floats(soup.tree), floats(target), rtol=1e-6)
    assert soup.tree["steps"] is bad["steps"]
    assert soup.score == pytest.approx(0, abs=1e-9)


def test_it_is_never_worse_than_the_best():
    trees = make_trees()
    score = _near(trees[1])
    soup = merging.greedy_soup(trees, score)
    assert soup.chosen == (1,)
    assert_close(soup.tree, trees[1])
    alone = merging.greedy_soup(trees[:1], score)
    assert alone.chosen == (0,)
    same = merging.greedy_soup([trees[0]] * 3, lambda tree: 0.0)
    assert same.chosen == (0, 1, 2)
    assert_close(floats(same.tree), floats(trees[0]), rtol=1e-6)


def test_known_scores_are_not_computed_and_nan_is_the_worst():
    trees, seen = make_trees(), []

    def score(tree):
        seen.append(tree)
        return 5.0

    soup = merging.greedy_soup(trees, score, scores=[1.0, float("nan"), 3.0])
    assert soup.chosen == (2, 0, 1)
    assert len(seen) == 2
    broken = jax.tree.map(lambda x: x, trees[0])
    broken["layer"][0]["w"] = jnp.full((4, 8), jnp.nan)
    found = merging.greedy_soup([broken, trees[1]], _near(trees[1]))
    assert found.chosen == (1,)
    assert_close(floats(found.tree), floats(trees[1]))


def test_metric_weights():
    w = merging.metric_weights([2.0, 1.0, 4.0])
    np.testing.assert_allclose(w, np.array([2, 4, 1]) / 7, rtol=1e-6)
    np.testing.assert_allclose(
        merging.metric_weights([1.0, 3.0], better="higher", penalty=2.0),
        [0.1, 0.9],
        rtol=1e-6,
    )
    even = merging.metric_weights(jnp.array([3.0, 5.0, 9.0]), penalty=0.0)
    np.testing.assert_allclose(even, 1 / 3, rtol=1e-6)
    best = merging.metric_weights([3.0, 5.0, 9.0], penalty=1e3)
    np.testing.assert_allclose(best, [1, 0, 0], atol=1e-6)
    assert np.isfinite(
        jax.grad(lambda p: merging.metric_weights([2, 3], penalty=p)[0])(1.0)
    )


def test_metrics_weighted_averages():
    trees = make_trees()
    same = merging.metrics_weighted(trees, [2.0, 2.0, 2.0])
    assert_close(floats(same), floats(merging.linear(trees)), rtol=1e-6)
    got = merging.metrics_weighted(trees, jnp.array([100, 200, 300]), better="higher")
    want = merging.linear(trees, weights=[1.0, 2.0, 3.0])
    assert_close(floats(got), floats(want), rtol=1e-5)


def test_modules_are_assembled():
    meta = [{"w": jnp.zeros(1)}, {"w": jnp.ones(1)}]
    deep = [[{"w": jnp.ones(2)}] * 3, [{"w": jnp.ones(3)}] * 3]
    assert merging.assemble_modules(meta, deep, use=[False, False]) == meta
    assert merging.assemble_modules(meta, deep, use=[True, True]) == deep
    hybrid = merging.assemble_modules(meta, deep, use=1)
    assert hybrid[0] is meta[0]
    assert hybrid[1] is deep[1]

    def loss(meta, module):
        parts = merging.assemble_modules(meta, [None, module], use=1)
        return jnp.sum(parts[0]["w"]) + jnp.sum(parts[1][0]["w"] ** 2)

    grads = jax.grad(loss)(meta, deep[1])
    assert_close(grads[1]["w"], jnp.zeros(1))


def test_mistakes_are_named():
    trees = make_trees()
    short = {k: v for k, v in trees[1].items() if k != "scale"}
    with as_users_see_it():
        with pytest.raises(ValueError, match="trees"):
            merging.greedy_soup([], float)
        with pytest.raises(ValueError, match=r"trees\[1\]: \['scale'\] is missing"):
            merging.greedy_soup([trees[0], short], lambda tree: 0.0)
        with pytest.raises(ValueError, match="scores: wanted 3"):
            merging.greedy_soup(trees, lambda tree: 0.0, scores=[1.0])
        with pytest.raises(ValueError, match="trees"):
            merging.metrics_weighted([], [])
        with pytest.raises(ValueError, match="metrics: wanted 3"):
            merging.metrics_weighted(trees, [1.0, 2.0])
        with pytest.raises(ValueError, match="better"):
            merging.metric_weights([1.0], better="larger")
        with pytest.raises(ValueError, match="modules: wanted 2"):
            merging.assemble_modules([1, 2], [1], use=0)
        with pytest.raises(ValueError, match="use"):
            merging.assemble_modules([1, 2], [1, 2], use=2)
        with pytest.raises(ValueError, match="use"):
            merging.assemble_modules([1, 2], [1, 2], use=[True])
