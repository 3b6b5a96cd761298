"""Checks of merges: several trees in, one of the same structure and dtypes out.

A merge whose first parameter is called `base` is handed one.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from tests.case import Case
from tests.free import common
from tests.free.common import assert_close, assert_finite

MODELS = 3


def make_tree(seed: int, dtype=jnp.float32):
    """Matrices, a vector, a scalar and a counter: what a checkpoint holds."""
    rng = np.random.default_rng((13, seed))

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), dtype)

    return {
        "layer": [{"w": normal(4, 8), "b": normal(8)}, {"w": normal(8, 2)}],
        "scale": normal(),
        "steps": jnp.asarray(7, jnp.int32),
    }


def make_trees(dtype=jnp.float32):
    return [make_tree(i, dtype) for i in range(1, MODELS + 1)]


def apply(case: Case, base, trees, hyper=None):
    kwargs = {**case.static, **(dict(case.hyper) if hyper is None else hyper)}
    first = next(iter(inspect.signature(case.fn).parameters))
    return (
        case.fn(base, trees, **kwargs) if first == "base" else case.fn(trees, **kwargs)
    )


def floats(tree):
    return [x for x in jax.tree.leaves(tree) if common.is_float(x)]


def jit_equals_eager(case: Case):
    """Traced hyperparameters under jit, Python ones without, NaN alarms on."""
    hyper = common.cast_floats(dict(case.hyper), jnp.float32)
    got = jax.jit(functools.partial(apply, case))(make_tree(0), make_trees(), hyper)
    with jax.debug_nans(True), jax.numpy_dtype_promotion("strict"):
        want = apply(case, make_tree(0), make_trees())
    assert_close(got, want)
    assert jax.tree.structure(got) == jax.tree.structure(make_tree(0))


def identity(case: Case):
    """Equal models merge to themselves."""
    same = make_tree(1)
    assert_close(apply(case, same, [same] * MODELS), same, rtol=1e-6)


def symmetry(case: Case):
    """The order of the models does not matter, if their weights move with them."""
    order = [2, 0, 1]
    trees = make_trees()
    moved = {
        k: np.asarray(v)[np.array(order)] if np.shape(v) == (MODELS,) else v
        for k, v in case.hyper.items()
    }
    got = apply(case, make_tree(0), [trees[i] for i in order], moved)
    assert_close(got, apply(case, make_tree(0), trees), rtol=1e-6)


def dtypes(case: Case):
    """Each leaf keeps its dtype; bf16 is merged in f32 and rounded once."""
    low = [
        common.cast_floats(tree, jnp.bfloat16) for tree in (make_tree(0), *make_trees())
    ]
    got = apply(case, low[0], low[1:])
    assert all(x.dtype == jnp.bfloat16 for x in floats(got))
    assert got["steps"].dtype == jnp.int32
    exact = [common.cast_floats(tree, jnp.float32) for tree in low]
    want = common.cast_floats(apply(case, exact[0], exact[1:]), jnp.bfloat16)
    for a, b in zip(floats(got), floats(want), strict=True):
        np.testing.assert_array_equal(
            np.asarray(a, np.float32), np.asarray(b, np.float32)
        )


def derivatives(case: Case):
    """The gradient in the smooth hyperparameters equals central differences, f64."""
    names = [k for k in case.hyper if case.smooth is None or k in case.smooth]
    with jax.enable_x64(True):
        trees = [
            common.cast_floats(t, jnp.float64) for t in (make_tree(0), *make_trees())
        ]
        hyper = common.cast_floats({k: case.hyper[k] for k in names}, jnp.float64)
        fixed = {k: v for k, v in case.hyper.items() if k not in names}

        @jax.jit
        def objective(hyper):
            merged = apply(case, trees[0], trees[1:], {**fixed, **hyper})
            return sum(jnp.sum(jnp.sin(x)) for x in floats(merged))

        tangent = common.direction(hyper)
        grads = jax.jit(jax.grad(objective))(hyper)
        up = objective(common.shift(hyper, 1e-6, tangent))
        down = objective(common.shift(hyper, -1e-6, tangent))
        assert_close(common.inner(grads, tangent), (up - down) / 2e-6, rtol=1e-6)


def vmap_over_settings(case: Case):
    """A batch of settings equals one after the other."""
    if not case.hyper:
        return
    scales = jnp.array([0.5, 1.0])
    hyper = jax.tree.map(lambda v: jnp.stack([s * v for s in scales]), dict(case.hyper))
    run = functools.partial(apply, case, make_tree(0), make_trees())
    got = jax.jit(jax.vmap(run))(hyper)
    assert_close(floats(jax.tree.map(lambda x: x[1], got)), floats(run()), rtol=1e-6)


def sharding(case: Case):
    """Sharded models give a sharded merge with the one-device values."""
    want = apply(case, make_tree(0), make_trees())
    for kind in (AxisType.Auto, AxisType.Explicit):

        def put(x, kind=kind):
            return common.put(x, kind, *("data", "model")[: x.ndim])

        with jax.set_mesh(common.mesh(kind)):
            trees = jax.tree.map(put, [make_tree(0), *make_trees()])
            got = jax.jit(functools.partial(apply, case))(trees[0], trees[1:])
        assert_close(got, want, rtol=1e-6, what=str(kind))
        assert got["layer"][0]["w"].sharding.spec == P("data", "model"), kind


def edges(case: Case):
    """Zero differences, one model, and constant leaves stay finite."""
    zeros = jax.tree.map(jnp.zeros_like, make_tree(0))
    assert_finite(apply(case, zeros, [zeros] * MODELS))
    hyper = {k: v[:1] if np.shape(v) == (MODELS,) else v for k, v in case.hyper.items()}
    assert_finite(apply(case, make_tree(0), [make_tree(1)], hyper))


def limits(case: Case):
    """The easy special cases that the source states."""
    for what, expected, changes in case.limits:
        got = apply(case, make_tree(0), make_trees(), {**case.hyper, **changes})
        assert_close(got, expected(make_tree(0), make_trees()), rtol=1e-6, what=what)


def errors(case: Case):
    """Bad trees are named by path, bad settings by name."""
    base, trees = make_tree(0), make_trees()
    other_shape = jax.tree.map(lambda x: x, trees[1])
    other_shape["layer"][1]["w"] = jnp.ones((8, 3))
    other_keys = {k: v for k, v in trees[1].items() if k != "scale"}
    for bad, path in (
        (other_shape, r"\['layer'\]\[1\]\['w'\]"),
        (other_keys, r"\['scale'\]"),
    ):
        common.raises(
            lambda b=bad: apply(case, base, [trees[0], b, trees[2]]), naming=path
        )
    common.raises(lambda: apply(case, base, []), naming="trees")
    for bad in case.bad:
        common.raises(
            lambda b=bad: apply(case, base, trees, {**case.hyper, **b}),
            naming=next(iter(bad)),
        )


CHECKS = (
    jit_equals_eager,
    identity,
    symmetry,
    dtypes,
    derivatives,
    vmap_over_settings,
    sharding,
    edges,
    limits,
    errors,
)
