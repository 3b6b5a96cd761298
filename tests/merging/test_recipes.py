"""Merges that take more than trees are asked what every merge is asked."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks import merging
from jaxtricks._batch import whole
from jaxtricks._tree import map_floats, promote
from tests.case import Case
from tests.free import merge
from tests.free.common import assert_close


def _squares(tree):
    return map_floats(jnp.square, promote(tree))


def _grams(tree):
    """An inner product of the inputs of each matrix, which moves with its model."""

    def gram(x):
        if jnp.ndim(x) != 2:
            return None
        x = whole(x)
        return x @ x.T + jnp.eye(len(x), dtype=x.dtype)

    return jax.tree.map(gram, promote(tree))


def _fisher(base, trees, **kwargs):
    return merging.fisher(trees, [_squares(tree) for tree in trees], **kwargs)


def _regmean(base, trees, **kwargs):
    return merging.regmean(trees, [_grams(tree) for tree in trees], **kwargs)


def _metrics_weighted(base, trees, **kwargs):
    return merging.metrics_weighted(trees, **kwargs)


def _knots(base, trees, **kwargs):
    method = functools.partial(merging.ties, density=0.6)
    return merging.knots(base, trees, method=method, **kwargs)


def _of_one(merge):
    def merge_first(base, trees, **kwargs):
        return merge(base, trees[0], **kwargs)

    return merge_first


def _patch(base, trees, **kwargs):
    return merging.patch_weights(base, trees, **kwargs)


def _signature(base, trees):
    return merging.robust_weight_signature(base, trees[0], trees[-1])


W = np.array([0.5, 1.0, 0.25], np.float32)
FEW = (merge.dtypes, merge.sharding)
ALWAYS = (*FEW, merge.jit_equals_eager, merge.edges)
SETTINGS = (*ALWAYS, merge.derivatives, merge.vmap_over_settings, merge.identity)
ALL = (*SETTINGS, merge.symmetry)


def _rows():
    for name, fn, hyper, static, checks in (
        ("fisher", _fisher, {"weights": W}, {}, ALL),
        ("normalized", _fisher, {"weights": W}, {"normalize": True}, FEW),
        ("regmean", _regmean, {"alpha": 0.7}, {}, ALL),
        ("metrics", _metrics_weighted, {"metrics": 1 + W, "penalty": 1.5}, {}, FEW),
        ("knots", _knots, {"scale": 0.7}, {}, SETTINGS),
        ("patch", _patch, {"weights": W}, {}, FEW),
        ("signature", _signature, {}, {}, FEW),
        ("wise_ft", _of_one(merging.wise_ft), {"alpha": 0.3}, {}, SETTINGS),
        ("neon", _of_one(merging.neon), {"weight": 0.3}, {}, FEW),
        (
            "darex_q",
            _of_one(merging.darex_q),
            {"q": 0.8},
            {"density": 0.5, "key": jax.random.key(0)},
            SETTINGS,
        ),
    ):
        case = Case(fn, kind="merge", hyper=hyper, static=static, name=name)
        for check in checks:
            yield pytest.param(case, check, id=f"{name}-{check.__name__}")


@pytest.mark.parametrize(("case", "check"), list(_rows()))
def test_recipe(case, check):
    check(case)


def test_leaves_are_found_by_their_paths():
    """Containers of one structure need not have one order of leaves."""
    base, *trees = (
        {"b": np.float32([i, 2]), "a": np.float32([5, i * i])} for i in range(4)
    )
    mixed = [collections.OrderedDict(tree) for tree in trees]  # "b" comes first
    assert list(jax.tree.leaves(mixed[1])[0]) == [2, 2]
    for run in (merging.task_arithmetic, merging.ties, merging.knots):
        assert_close(run(base, mixed), run(base, trees))
    assert_close(merging.linear([trees[0], *mixed[1:]]), merging.linear(trees))
    ordered = merging.wise_ft(mixed[0], trees[1])
    assert_close(dict(ordered), merging.wise_ft(trees[0], trees[1]))
    squares = [_squares(tree) for tree in trees]
    got = merging.fisher(trees, [collections.OrderedDict(x) for x in squares])
    assert_close(got, merging.fisher(trees, squares))
    masks = [{"b": np.array([True, False]), "a": np.array([False, True])}] * 3
    other = [collections.OrderedDict(mask) for mask in masks]
    got = merging.dare(base, mixed, density=0.5, mask=other)
    assert_close(got, merging.dare(base, trees, density=0.5, mask=masks))
