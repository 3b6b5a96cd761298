"""TIES beyond the free checks: against numpy, at equal magnitudes, exact counts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtricks import merging
from jaxtricks.merging._select import keep_largest
from tests.free.common import as_users_see_it, assert_close, cast_floats
from tests.free.merge import make_tree, make_trees

RNG = np.random.default_rng(1)
STACK = RNG.normal(size=(4, 5, 8)).astype(np.float32)
COARSE = np.round(STACK)  # few distinct magnitudes, many zeros
WEIGHTS = [1.0, 0.5, -0.5, 2.0]


def ties_leaf(changes, **kwargs):
    """On changes: the base is 0."""
    return merging.ties_leaf(0 * changes[0], changes, **kwargs)


def oracle(stack, weights, density, sign, normalize):
    """The three steps in f64, with a stable sort."""
    n = len(stack)
    flat = np.float64(stack).reshape(n, -1)
    kept = np.zeros_like(flat)
    for i, d in enumerate(np.broadcast_to(density, n)):
        k = max(int(d > 0), int(d * flat.shape[1]))
        top = np.argsort(-np.abs(flat[i]), kind="stable")[:k]
        kept[i, top] = flat[i, top]
    w = np.float64(weights)[:, None]
    t = w * kept
    elected = np.where((t if sign == "total" else np.sign(t)).sum(0) >= 0, 1, -1)
    agree = np.sign(t) == elected
    total = (t * agree).sum(0)
    share = (w * agree).sum(0)
    out = total / np.where(share == 0, 1, share) if normalize else total
    return out.reshape(stack.shape[1:])


@pytest.mark.parametrize("sign", ["total", "frequency"])
@pytest.mark.parametrize("normalize", [True, False])
def test_leaf_against_numpy(sign, normalize):
    leaf = jax.jit(
        lambda stack, w: ties_leaf(
            stack, weights=w, density=0.3, sign=sign, normalize=normalize
        )
    )
    for stack, weights in itertools.product((STACK, COARSE), (WEIGHTS, [1, 1, 1, 1])):
        want = oracle(stack, weights, 0.3, sign, normalize)
        got = leaf(stack, jnp.asarray(weights, jnp.float32))
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-6)


def test_density_by_model_and_its_ends():
    for density in ([0.1, 0.5, 0.9, 1.0], 0.0, 1.0, 0, 1):
        want = oracle(STACK, WEIGHTS, density, "total", True)
        got = ties_leaf(STACK, weights=WEIGHTS, density=density)
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-6)
    got = ties_leaf(STACK, weights=WEIGHTS, density=np.float32([0.1, 0.5, 0.9, 1]))
    want = oracle(STACK, WEIGHTS, [0.1, 0.5, 0.9, 1], "total", True)
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-6)


def test_the_default_density_is_the_papers():
    np.testing.assert_array_equal(ties_leaf(STACK), ties_leaf(STACK, density=0.2))


def count(density, size):
    """How many of `size` entries one model keeps."""
    x = jnp.arange(1.0, size + 1)[None]
    return int(jnp.sum(ties_leaf(x, density=density) != 0))


@pytest.mark.parametrize(
    ("density", "size"), [(0.3, 10), (0.7, 10), (0.29, 100), (0.1, 30), (0.99, 1)]
)
def test_a_python_density_keeps_what_python_would(density, size):
    assert count(density, size) == max(1, int(density * size))


def test_small_leaves_keep_one_change_unless_density_is_zero():
    """A scalar would never learn at the default density."""
    for density in (0.2, jnp.float32(0.2)):
        assert count(density, 1) == count(density, 4) == 1
    assert count(0.0, 4) == count(jnp.float32(0.0), 4) == 0
    empty = merging.ties(jnp.zeros((0, 3)), [jnp.zeros((0, 3))], density=0.5)
    assert empty.shape == (0, 3)


@pytest.mark.parametrize("tenths", range(11))
def test_a_traced_density_next_to_an_integer(tenths):
    """0.7 * 10 is 7, though the f32 nearest to 0.7 lies below it."""
    assert count(jnp.float32(tenths / 10), 10) == tenths


SHAPES = st.sampled_from([((7,),), ((2, 3),), ((3,), (2, 2)), ((), (4,), (1, 2))])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shapes=SHAPES, data=st.data())
def test_keep_largest_is_the_head_of_a_stable_sort(shapes, data):
    """Whatever is equal, zero, infinite or subnormal, and however it is spread."""
    values = st.sampled_from(
        [0.0, -0.0, 1.0, -1.0, 2.0, 1e-40, -3e38, np.inf, 1.0000001]
    )
    sizes = [int(np.prod(s)) for s in shapes]
    total = sum(sizes)
    rows = st.lists(values, min_size=total, max_size=total)
    flat = np.float32([data.draw(rows), data.draw(rows)])
    k = np.int32([data.draw(st.integers(0, total)) for _ in range(2)])
    parts = np.split(flat, np.cumsum(sizes)[:-1], axis=1)
    stacks = [jnp.asarray(p.reshape(2, *s)) for p, s in zip(parts, shapes, strict=True)]
    masks = keep_largest(stacks, jnp.asarray(k))
    got = np.concatenate([np.reshape(m, (2, -1)) for m in masks], axis=1)
    for row, mask, keep in zip(flat, got, k, strict=True):
        want = np.argsort(-np.abs(row), kind="stable")[:keep]
        np.testing.assert_array_equal(np.flatnonzero(mask), np.sort(want))


def test_keep_largest_in_f64():
    with jax.enable_x64(True):
        x = jnp.asarray([[1.0, 1.0 + 1e-15, 1.0 - 1e-15]])
        (mask,) = keep_largest([x], jnp.int32([1]))
    np.testing.assert_array_equal(mask, [[False, True, False]])


def test_global_scope_is_one_long_tensor():
    base, trees = make_tree(0), make_trees()
    merge = jax.jit(lambda: merging.ties(base, trees, density=0.4, scope="global"))

    def flat(tree):
        return np.concatenate(
            [np.ravel(x) for x in jax.tree.leaves({**tree, "steps": None})]
        )

    changes = np.stack([flat(t) - flat(base) for t in trees])
    want = flat(base) + oracle(changes, [1, 1, 1], 0.4, "total", True)
    np.testing.assert_allclose(flat(merge()), want, rtol=2e-6, atol=2e-6)


def test_global_scope_counts_only_what_is_merged():
    base, trees = make_tree(0), make_trees()
    where = {"layer": [{"w": True, "b": False}, False], "scale": False, "steps": False}
    got = merging.ties(base, trees, density=0.4, scope="global", where=where)
    one = [t["layer"][0]["w"] for t in (base, *trees)]
    assert_close(got["layer"][0]["w"], merging.ties(one[0], one[1:], density=0.4))
    assert got["layer"][1]["w"] is base["layer"][1]["w"]
    nothing = merging.ties(base, trees, scope="global", where=False)
    assert nothing["scale"] is base["scale"]


def test_one_model_is_trimmed_only():
    base, tree = make_tree(0), make_tree(1)
    assert_close(merging.ties(base, [tree], density=1.0), tree)
    w = [t["layer"][0]["w"] for t in (base, tree)]
    got = merging.ties(w[0], [w[1]], density=0.5)
    assert int(jnp.sum(got != w[0])) == 16
    np.testing.assert_allclose(np.where(got != w[0], got, w[1]), w[1], rtol=1e-6)


def test_opposite_changes_do_not_cancel():
    """The reason to use it: the mean of +1 and -0.9 would be almost nothing."""
    got = merging.ties(
        jnp.zeros(2), [jnp.array([1.0, -1.0]), jnp.array([-0.9, -2.0])], density=1.0
    )
    np.testing.assert_allclose(got, [1.0, -1.5])


def test_gradients_reach_only_the_kept_and_elected():
    a, b = jnp.array([3.0, 1.0, -2.0]), jnp.array([1.0, 0.5, 4.0])
    jac = jax.jacobian(
        lambda a, b: merging.ties(jnp.zeros(3), [a, b], density=0.7), (0, 1)
    )
    grads = jac(a, b)
    np.testing.assert_allclose(grads[0], np.diag([0.5, 0.0, 0.0]))
    np.testing.assert_allclose(grads[1], np.diag([0.5, 0.0, 1.0]))


def test_vmap_over_models_and_coefficients():
    densities = jnp.array([0.2, 0.5, 0.9])
    got = jax.jit(jax.vmap(lambda d: ties_leaf(COARSE, density=d)))(densities)
    for density, x in zip([0.2, 0.5, 0.9], got, strict=True):
        want = oracle(COARSE, [1] * 4, density, "total", True)
        np.testing.assert_allclose(x, want, rtol=2e-6, atol=1e-6)


def test_bf16_changes_are_trimmed_in_f32():
    low = [cast_floats(t, jnp.bfloat16) for t in (make_tree(0), *make_trees())]
    got = merging.ties(low[0], low[1:], density=0.5)
    f32 = [cast_floats(t, jnp.float32) for t in low]
    want = cast_floats(merging.ties(f32[0], f32[1:], density=0.5), jnp.bfloat16)
    assert_close(got, want, rtol=0)


def test_too_many_entries_to_count():
    huge = jax.ShapeDtypeStruct((2**16, 2**15), jnp.float32)
    with as_users_see_it(), pytest.raises(ValueError, match="scope"):
        jax.eval_shape(lambda b, t: merging.ties(b, [t]), huge, huge)
