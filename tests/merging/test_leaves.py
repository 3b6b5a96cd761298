"""Leaf functions: numpy equals jax at every shape and edge, and does not import it."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxtricks import merging
from tests.free.common import as_users_see_it, assert_close, cast_floats
from tests.free.merge import floats, make_tree, make_trees

# What comes in (a base and models, models, two models, a base and one model), settings.
LEAVES = {
    merging.linear_leaf: ("models", {"weights": [0.5, 0.2, 1.1]}),
    merging.task_arithmetic_leaf: ("base", {"weights": [0.5, 0.2, 1.1], "scale": 0.7}),
    merging.ties_leaf: ("base", {"density": 0.6, "rescale": "l1", "divisor": "count"}),
    merging.breadcrumbs_leaf: ("base", {"density": [0.6, 0.3, 1.0], "gamma": 0.2}),
    merging.sce_leaf: ("base", {"select": 0.6}),
    merging.ram_leaf: ("base", {"r": 0.3, "epsilon": 0.4}),
    merging.slerp_leaf: ("two", {"t": 0.3}),
    merging.nuslerp_leaf: ("two", {"weights": [1, 2], "rows": True}),
    merging.multislerp_leaf: ("models", {"weights": [0.5, 0.2, 1.1]}),
    merging.karcher_leaf: ("models", {"weights": [0.5, 0.2, 1.1]}),
    merging.model_stock_leaf: ("base", {"rows": True}),
    merging.nearswap_leaf: ("one", {"t": 0.3}),
    merging.arcee_fusion_leaf: ("one", {}),
}
each_leaf = pytest.mark.parametrize("leaf", LEAVES, ids=lambda f: f.__name__)
SHAPES = ((), (1,), (7,), (4, 5), (5, 1), (2, 3, 4), (0, 3))


def data(leaf, shape, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=shape).astype(dtype)
    stack = rng.normal(size=(3, *shape)).astype(dtype)
    kind, kwargs = LEAVES[leaf]
    args = {
        "models": (stack,),
        "base": (base, stack),
        "two": (stack[:2],),
        "one": (base, stack[0]),
    }
    return args[kind], kwargs


@each_leaf
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_numpy_equals_jax(leaf, shape):
    args, kwargs = data(leaf, shape)
    got = leaf(*args, **kwargs)
    assert isinstance(got, np.ndarray | np.generic)
    assert (got.shape, got.dtype) == (shape, np.float32)
    want = jax.jit(lambda *args: leaf(*args, **kwargs))(*args)
    assert want.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6)


@each_leaf
def test_computed_in_at_least_f32(leaf):
    args, kwargs = data(leaf, (4, 5), ml_dtypes.bfloat16)
    exact = [x.astype(np.float32) for x in args]
    got = leaf(*args, **kwargs)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, leaf(*exact, **kwargs))
    args, kwargs = data(leaf, (4, 5), np.float64)
    assert leaf(*args, **kwargs).dtype == np.float64


@each_leaf
def test_nothing_but_zeros(leaf):
    args, kwargs = data(leaf, (4, 5))
    np.testing.assert_array_equal(
        leaf(*(0 * x for x in args), **kwargs), np.zeros((4, 5))
    )


@each_leaf
def test_equal_models_are_themselves(leaf):
    args, kwargs = data(leaf, (4, 5))
    model = args[0] if args[0].ndim == 2 else args[0][0]
    same = [np.broadcast_to(model, x.shape).copy() for x in args]
    np.testing.assert_allclose(leaf(*same, **kwargs), model, rtol=2e-6)


@each_leaf
def test_nan_does_not_raise_and_is_not_hidden(leaf):
    args, kwargs = data(leaf, (4, 5))
    args = [x.copy() for x in args]
    args[0][..., 0, 0] = np.nan
    if args[0].ndim == 2:  # a NaN in the base
        assert np.isnan(leaf(*args, **kwargs)[0, 0])
    else:
        assert np.isnan(leaf(*args, **kwargs)).any()


@each_leaf
def test_numbers_of_numpy_do_not_widen(leaf):
    args, kwargs = data(leaf, (4, 5))
    wide = {k: np.float64(v) if type(v) is float else v for k, v in kwargs.items()}
    got = leaf(*args, **wide)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, leaf(*args, **kwargs))


@each_leaf
@pytest.mark.parametrize("shape", [(), (0, 4)], ids=str)
def test_a_stack_of_no_model(leaf, shape):
    kind, kwargs = LEAVES[leaf]
    if kind in ("models", "base"):
        stack = np.zeros(shape, np.float32)
        args = (stack,) if kind == "models" else (np.zeros(4, np.float32), stack)
        with as_users_see_it(), pytest.raises(ValueError, match="stack: wanted"):
            leaf(*args, **kwargs)


def test_files_need_no_jax():
    code = (
        "import sys, numpy as np, jaxtricks.merging as m; x = np.eye(3); "
        "s = np.stack([x, 2 * x]); m.ties_leaf(x, s); m.sce_leaf(x, s); "
        "m.della_leaf(x, s, density=0.5, key=np.random.default_rng(0)); "
        "m.karcher_leaf(s); m.slerp_leaf(s); m.arcee_fusion_leaf(x, s[1]); "
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_base_of_another_shape():
    with (
        as_users_see_it(),
        pytest.raises(ValueError, match=r"base: wanted shape \(3,\)"),
    ):
        merging.task_arithmetic_leaf(np.zeros(2), np.zeros((2, 3)))


TREES = make_trees()


def test_slerp_keeps_the_norm_of_equal_norms():
    x, y = np.float32([3, 0, 4]), np.float32([0, 5, 0])
    for t in (0.0, 0.2, 0.5, 1.0):
        got = merging.slerp([x, y], t=t)
        np.testing.assert_allclose(np.linalg.norm(got), 5, rtol=1e-6)
    assert_close(merging.slerp(TREES[:2], t=0.0), TREES[0])
    assert_close(floats(merging.slerp(TREES[:2], t=1.0)), floats(TREES[1]))
    # Parallel: the line.
    np.testing.assert_allclose(merging.slerp([x, 3 * x], t=0.5), 2 * x, rtol=1e-6)
    np.testing.assert_allclose(merging.slerp([x, -x], t=0.25), x / 2, rtol=1e-6)


def test_slerp_differentiates_at_parallel_models():
    x = jnp.array([3.0, 0.0, 4.0])
    slope = jax.grad(lambda t: jnp.sum(merging.slerp([x, x], t=t)))(0.3)
    assert jnp.isfinite(slope)
    grad = jax.grad(lambda y: jnp.sum(merging.nuslerp([x, y])))(x)
    assert jnp.isfinite(grad).all()


def test_nuslerp_is_slerp_by_weights():
    two = TREES[:2]
    got = merging.nuslerp(two, weights=[1.0, 3.0])
    assert_close(got, merging.slerp(two, t=0.75, threshold=1.0))
    base = make_tree(0)
    got = merging.nuslerp(two, base=base, weights=[1.0, 0.0])
    assert_close(floats(got), floats(two[0]))
    # A sum of weights that is 0 counts as equal ones.
    assert_close(merging.nuslerp(two, weights=[1.0, -1.0]), merging.nuslerp(two))


def test_multislerp_and_karcher_of_two_are_the_middle_of_the_arc():
    x, y = np.float32([3, 0, 4]), np.float32([0, 5, 0])
    middle = merging.slerp([x, y])
    np.testing.assert_allclose(merging.multislerp([x, y]), middle, rtol=2e-6)
    np.testing.assert_allclose(merging.karcher([x, y]), middle, rtol=2e-6)
    # Opposite: the line, and the first.
    np.testing.assert_array_equal(merging.multislerp([x, -x]), 0 * x)
    np.testing.assert_allclose(merging.karcher([x, -x]), x, rtol=1e-6)


def test_karcher_ignores_the_direction_of_nothing():
    x = np.float32([3, 0, 4])
    np.testing.assert_allclose(merging.karcher([x, 0 * x]), x / 2, rtol=1e-6)


def test_model_stock_at_its_angles():
    base, right, up = np.zeros(2, np.float32), np.float32([2, 0]), np.float32([0, 2])
    np.testing.assert_allclose(merging.model_stock(base, [right, up]), base, atol=1e-6)
    same = merging.model_stock(base, [right, right])
    np.testing.assert_allclose(same, right, rtol=1e-6)
    # Opposite changes have no estimate: the base.
    np.testing.assert_array_equal(merging.model_stock(base, [right, -right]), base)
    rows = np.stack([right, up])
    got = merging.model_stock(0 * rows, [rows, np.stack([right, right])], rows=True)
    np.testing.assert_allclose(got, [[2, 0], [0, 0]], atol=1e-6)
    with (
        as_users_see_it(),
        pytest.raises(ValueError, match="trees: wanted at least two"),
    ):
        merging.model_stock(base, [right])


def test_nearswap_moves_by_t_at_most():
    base, tree = make_tree(0), make_tree(1)
    got = merging.nearswap(base, tree, t=0.3)
    for b, x, y in zip(*map(floats, (base, tree, got)), strict=True):
        want = b + np.clip(x - b, -0.3, 0.3)
        np.testing.assert_allclose(y, want, rtol=2e-6, atol=1e-6)
    assert_close(merging.nearswap(base, tree, t=0.0), base)
    assert_close(floats(merging.nearswap(base, tree, t=100.0)), floats(tree))
    with as_users_see_it(), pytest.raises(ValueError, match="t: wanted >= 0"):
        merging.nearswap(base, tree, t=-1.0)


def test_arcee_fusion_takes_what_matters_most():
    base, tree = make_tree(0), make_tree(1)
    got = merging.arcee_fusion(base, tree)
    for b, x, y in zip(*map(floats, (base, tree, got)), strict=True):
        assert (np.isclose(y, b) | np.isclose(y, x)).all()
    taken = np.isclose(got["layer"][0]["w"], tree["layer"][0]["w"])
    assert 0 < taken.sum() < taken.size / 2
    assert got["steps"] == base["steps"]


def test_pairs_need_two_models():
    for fn in (merging.slerp, merging.nuslerp):
        with as_users_see_it(), pytest.raises(ValueError, match="trees: wanted two"):
            fn(TREES)


@pytest.mark.parametrize(
    "merge",
    [merging.slerp, merging.nuslerp],
    ids=lambda f: f.__name__,
)
def test_dtypes_and_integers_stay_those_of_the_first(merge):
    low = [cast_floats(t, jnp.bfloat16) for t in TREES[:2]]
    got = merge(low)
    assert all(x.dtype == jnp.bfloat16 for x in floats(got))
    assert got["steps"].dtype == jnp.int32


def test_sce_weighs_by_energy():
    """Weights 10/12 and 2/12; the smaller one's sign loses."""
    base, trees = np.zeros(3), np.float64([[3, 1, 0], [1, -1, 0]])
    np.testing.assert_allclose(merging.sce_leaf(base, trees), [32 / 12, 1, 0])
    # Half of those that differ: the second, whose models are further apart.
    apart = trees * [1, 3, 1]
    got = merging.sce_leaf(base, apart, select=0.5)
    np.testing.assert_allclose(got, [0, 3, 0])


def test_ram_keeps_what_is_unique():
    base, trees = np.zeros(3), np.float64([[3, 1, 0], [1, 0, 1e-6]])
    np.testing.assert_allclose(merging.ram_leaf(base, trees), [2, 1, 0])
    # One shared entry to one unique: min(0.5, 1) of it is raised.
    got = merging.ram_leaf(base, trees, r=0.1, alpha=0.5)
    np.testing.assert_allclose(got, [2, 1.05, 0])


def test_breadcrumbs_drop_both_ends():
    x = np.float64([[9, -1, 2, -3, 8, 4]])
    got = merging.breadcrumbs_leaf(np.zeros(6), x, density=0.5, gamma=0.34)
    np.testing.assert_array_equal(got, [0, 0, 2, -3, 0, 4])
    # Where both do not fit, fewer outliers go.
    got = merging.breadcrumbs_leaf(np.zeros(6), x, density=0.84, gamma=0.5)
    np.testing.assert_array_equal(got, [0, -1, 2, -3, 8, 4])
    got = merging.breadcrumbs_leaf(np.zeros(6), x, density=1.0, gamma=0.5)
    np.testing.assert_array_equal(got, x[0])


@each_leaf
def test_a_nan_in_one_model_is_not_hidden(leaf):
    """As mergekit has it; no merge without its author's knowledge."""
    args, kwargs = data(leaf, (4, 5))
    args = [x.copy() for x in args]
    where = (1, 1) if args[-1].ndim == 2 else (1, 1, 1)
    args[-1][where] = np.nan
    if "density" in kwargs:
        kwargs = {**kwargs, "density": 1.0, "gamma": 0.0}
        kwargs = kwargs if leaf is merging.breadcrumbs_leaf else {"density": 1.0}
    for arrays in (args, [jnp.asarray(x) for x in args]):
        assert np.isnan(np.asarray(leaf(*arrays, **kwargs))[1, 1])


@each_leaf
def test_numpys_f64_meets_jax(leaf):
    """Where there is no f64, without a warning."""
    args, kwargs = data(leaf, (4, 5), np.float64)
    got = leaf(jnp.asarray(args[0], jnp.float32), *args[1:], **kwargs)
    assert got.dtype == jnp.float32
    want = leaf(*args, **kwargs)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6)


def test_coefficients_of_numpys_f64():
    density = np.array([0.5, 0.6, 0.7])
    got = merging.ties(make_tree(0), TREES, density=density)
    assert_close(got, merging.ties(make_tree(0), TREES, density=list(density)))
    got = merging.metrics_weighted(TREES, np.array([1.0, 2.0, 3.0]))
    assert_close(got, merging.metrics_weighted(TREES, [1.0, 2.0, 3.0]))


@pytest.mark.parametrize("eps", [0.0, -1.0])
def test_multislerp_divides_by_more_than_0(eps):
    with as_users_see_it(), pytest.raises(ValueError, match="eps: wanted > 0"):
        merging.multislerp(TREES, eps=eps)
