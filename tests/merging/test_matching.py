"""Matching: exact assignments, Git Re-Basin's objective, the best of several orders."""

import itertools
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtricks import merging
from jaxtricks.merging._ste_matching import _implicit, _sinkhorn

SPEC = {"in": "_ h", "b": "h", "mid": "h g", "out": "g _"}


def model(seed, h=5, g=4):
    rng = np.random.default_rng(seed)
    shapes = {"in": (3, h), "b": (h,), "mid": (h, g), "out": (g, 2)}
    return {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


def value(a, b):
    return sum(np.vdot(np.float64(a[k]), np.float64(np.asarray(b[k]))) for k in a)


def test_the_objective_is_the_inner_product_and_never_falls():
    a, b = model(0), model(1)
    values = []
    for sweeps in (1, 2, 3, 100):
        found = merging.weight_matching(SPEC, a, b, orders=1, max_sweeps=sweeps)
        moved = merging.apply_permutation(SPEC, found.permutation, b)
        np.testing.assert_allclose(found.objective, value(a, moved), rtol=1e-6)
        values.append(float(found.objective))
    assert values == sorted(values)
    assert values[-1] > value(a, b)


def test_one_hidden_layer_is_solved_exactly():
    """Of all orders of five units, the best."""
    a, b = model(2), model(3)
    spec = {"in": "_ h", "b": "h", "mid": "h _", "out": "_ _"}
    found = merging.weight_matching(spec, a, b)
    keys = ("in", "b", "mid")
    best = max(
        sum(np.vdot(a[k], np.take(b[k], p, 1 if k == "in" else 0)) for k in keys)
        for p in itertools.permutations(range(5))
    )
    np.testing.assert_allclose(found.objective, best, rtol=1e-6)
    np.testing.assert_allclose(sum(found.scores["h"]), best, rtol=1e-6)


def test_leaves_are_found_by_their_paths():
    """An OrderedDict's leaves come in its own order."""
    a, b = model(0), model(1)
    turned = OrderedDict((k, b[k]) for k in ("out", "mid", "in", "b"))
    for match in (merging.weight_matching, merging.sinkhorn_matching):
        found, wanted = match(SPEC, a, turned), match(SPEC, a, b)
        np.testing.assert_array_equal(found.permutation["h"], wanted.permutation["h"])


def test_more_orders_are_never_worse():
    for seed in range(5):
        a, b = model(10 + seed), model(20 + seed)
        few = merging.weight_matching(SPEC, a, b, orders=1).objective
        assert merging.weight_matching(SPEC, a, b, orders=8).objective >= few


def test_it_starts_where_it_is_told():
    a = model(4)
    p = {"h": np.array([3, 1, 0, 4, 2]), "g": np.array([1, 3, 0, 2])}
    moved = merging.apply_permutation(SPEC, p, a)
    undo = {k: np.argsort(v) for k, v in p.items()}
    found = merging.weight_matching(SPEC, a, moved, orders=1, init=undo)
    assert all(np.array_equal(found.permutation[k], undo[k]) for k in undo)


def test_nested_names_travel_with_their_parents():
    rng = np.random.default_rng(6)
    spec = {"v": "_ (g=3 g/c)", "o": "(g g/c) _"}
    a = {"v": rng.normal(size=(4, 12)), "o": rng.normal(size=(12, 2))}
    p = {"g": np.array([2, 0, 1]), "g/c": np.argsort(rng.random((3, 4)), -1)}
    with jax.enable_x64(True):
        moved = merging.apply_permutation(spec, p, a)
        found = merging.weight_matching(spec, a, moved)
        back = merging.apply_permutation(spec, found.permutation, moved)
        for k in a:
            np.testing.assert_array_equal(back[k], a[k])
        np.testing.assert_allclose(found.objective, value(a, a))
        start = found.permutation
        again = merging.weight_matching(spec, a, moved, init=start, orders=1)
        np.testing.assert_allclose(again.objective, found.objective)


def test_zero_one_unit_bf16_and_integers():
    tree = {"w": jnp.zeros((2, 1), jnp.bfloat16), "n": jnp.arange(3)}
    found = merging.weight_matching({"w": "_ h", "n": "..."}, tree, tree)
    assert found.permutation["h"].tolist() == [0]
    assert float(found.objective) == 0
    assert merging.weight_matching({"n": "..."}, {"n": 1.0}, {"n": 2.0}) == (
        {},
        np.asarray(0.0),
        {},
    )


@pytest.mark.parametrize("statistic", ["correlation", "product"])
def test_activations_that_are_permuted_are_found_again(statistic):
    rng = np.random.default_rng(8)
    z, p = rng.normal(size=(9, 2, 6)), rng.permutation(6)
    found = merging.activation_matching({"h": z}, {"h": z[..., p]}, statistic=statistic)
    assert np.array_equal(p[found.permutation["h"]], np.arange(6))
    if statistic == "correlation":
        np.testing.assert_allclose(found.scores["h"], 1)


def test_a_dead_unit_correlates_with_nothing():
    z = np.random.default_rng(9).normal(size=(9, 3))
    z[:, 1] = 2.0
    found = merging.activation_matching({"h": z}, {"h": z})
    assert found.scores["h"].tolist() == pytest.approx([1, 0, 1])


def test_what_matching_refuses():
    a, b = model(0), model(1)
    wrong = {**b, "in": b["in"][:, :3]}
    nan = {**b, "b": b["b"] * np.float32(np.nan)}
    z = np.ones((4, 3))
    for call, name in (
        (lambda: merging.weight_matching(SPEC, a, wrong), r"other: \['in'\]"),
        (lambda: merging.weight_matching(SPEC, a, nan), "NaN"),
        (lambda: merging.weight_matching(SPEC, a, b, orders=0), "orders"),
        (lambda: merging.weight_matching(SPEC, a, b, max_sweeps=0), "max_sweeps"),
        (lambda: merging.weight_matching(SPEC, a, b, init={"x": [0]}), "'x'"),
        (lambda: merging.activation_matching({"h": z}, {"g": z}), "others"),
        (lambda: merging.activation_matching({"h": z}, {"h": z[:2]}), "others"),
        (
            lambda: merging.activation_matching({"h": z}, {"h": z}, statistic="x"),
            "statistic",
        ),
    ):
        # The check of annotations refuses a word that is not known before we do.
        with pytest.raises((ValueError, TypeError), match=name):
            call()


def loss(params, x):
    h = jnp.tanh(x @ params["in"] + params["b"][None])
    y = jnp.tanh(h @ params["mid"]) @ params["out"]
    return jnp.mean(jnp.square(y - x[:, :2]))


def test_ste_matching_keeps_the_lowest_loss_half_way():
    a, b = model(0), model(1)
    batches = [np.random.default_rng(1).normal(size=(16, 3)).astype("f4")]
    found = merging.ste_matching(
        loss, SPEC, a, b, batches[:1] * 4, optimizer=optax.sgd(0.3)
    )
    moved = merging.apply_permutation(SPEC, found.permutation, b)
    middle = jax.tree.map(lambda x, y: (x + y) / 2, a, moved)
    np.testing.assert_allclose(-found.objective, loss(middle, batches[0]), rtol=1e-5)
    first = merging.weight_matching(SPEC, a, b, orders=1)
    start = merging.apply_permutation(SPEC, first.permutation, b)
    middle = jax.tree.map(lambda x, y: (x + y) / 2, a, start)
    assert -found.objective <= loss(middle, batches[0]) * 1.00001
    with pytest.raises(ValueError, match="batches"):
        merging.ste_matching(loss, SPEC, a, b, [])


@pytest.mark.parametrize("implicit", [False, True])
def test_sinkhorn_matching_finds_a_permuted_model(implicit):
    a = model(0)
    p = {"h": np.array([3, 1, 0, 4, 2]), "g": np.array([1, 3, 0, 2])}
    moved = merging.apply_permutation(SPEC, p, a)
    found = merging.sinkhorn_matching(SPEC, a, moved, implicit=implicit)
    assert all(
        np.array_equal(p[k][found.permutation[k]], np.arange(len(p[k]))) for k in p
    )
    np.testing.assert_allclose(found.objective, 0, atol=1e-9)
    with pytest.raises(ValueError, match="nested"):
        merging.sinkhorn_matching(
            {"w": "(g=2 g/c)"}, {"w": a["b"][:4]}, {"w": a["b"][:4]}
        )


def test_the_implicit_derivative_is_that_through_many_iterations():
    x, w = np.random.default_rng(2).normal(size=(2, 4, 4)).astype(np.float32)
    both = [
        jax.grad(lambda x, f=f: jnp.vdot(f(x, 100), w))(jnp.asarray(x))
        for f in (_sinkhorn, _implicit)
    ]
    np.testing.assert_allclose(*both, rtol=1e-3, atol=1e-4)


def test_matching_by_the_loss_takes_bf16_and_integers():
    a = {k: jnp.asarray(v, jnp.bfloat16) for k, v in model(0).items()}
    p = {"h": np.array([3, 1, 0, 4, 2])}
    spec, more = {**SPEC, "n": "..."}, {"n": jnp.arange(2)}
    moved = merging.apply_permutation(SPEC, p, a) | more
    a |= more
    found = merging.sinkhorn_matching(spec, a, moved)
    assert np.array_equal(p["h"][found.permutation["h"]], np.arange(5))
    batches = [np.ones((2, 3), np.float32)]
    found = merging.ste_matching(loss, spec, a, moved, batches)
    assert np.array_equal(p["h"][found.permutation["h"]], np.arange(5))
