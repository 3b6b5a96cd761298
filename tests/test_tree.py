"""Tree arithmetic against numpy, on trees of any shape."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtricks import _tree as tree
from tests.free.common import as_users_see_it

FEW = settings(max_examples=25, deadline=None, derandomize=True)


def leaf(shape, dtype):
    """A deterministic leaf of generic numbers."""
    size = int(np.prod(shape))
    values = np.cos(np.arange(size) * 1.7 + len(shape)).reshape(shape)
    return jnp.asarray(values * 3, dtype)


leaves = st.builds(
    leaf,
    st.sampled_from([(), (3,), (0,), (2, 3)]),
    st.sampled_from([jnp.float32, jnp.bfloat16, jnp.int32]),
)
trees = st.recursive(
    leaves | st.none() | st.just(optax.MaskedNode()),
    lambda child: (
        st.lists(child, max_size=3)
        | st.tuples(child, child)
        | st.dictionaries(st.sampled_from("abc"), child, max_size=3)
    ),
    max_leaves=6,
)


def numbers(t):
    """All float entries, in f64."""
    floats = [np.ravel(np.float64(x)) for x in jax.tree.leaves(t) if tree.is_float(x)]
    return np.concatenate([*floats, np.zeros(0)])


@FEW
@given(trees)
def test_arithmetic_equals_numpy(t):
    x = numbers(t)
    np.testing.assert_allclose(tree.dot(t, t), x @ x, rtol=1e-6)
    np.testing.assert_allclose(tree.norm(t), np.linalg.norm(x), rtol=1e-6)
    np.testing.assert_allclose(tree.peak(t), np.max(np.abs(x), initial=0.0))
    promoted = tree.promote(t)
    assert all(
        a.dtype == jnp.float32 for a in jax.tree.leaves(promoted) if tree.is_float(a)
    )
    np.testing.assert_array_equal(numbers(promoted), x)
    moved = tree.add_scaled(t, -0.5, promoted)
    assert jax.tree.structure(moved) == jax.tree.structure(t)
    for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(t), strict=True):
        assert a.dtype == b.dtype
        factor = 0.5 if tree.is_float(b) else 1
        np.testing.assert_array_equal(np.float64(a), factor * np.float64(b))


@FEW
@given(trees, trees)
def test_check_alike_accepts_exactly_equal_paths_and_shapes(a, b):
    def signature(t):
        return {
            path: "hole" if tree.is_masked(x) else x.shape
            for path, x in tree.paths(t).items()
        }

    tree.check_alike("a", a, a)
    if signature(a) == signature(b):
        tree.check_alike("b", b, a)
    else:
        with pytest.raises(ValueError, match=r"^b: "):
            tree.check_alike("b", b, a)


@FEW
@given(trees)
def test_complete_is_the_identity_around_a_tree_without_holes(t):
    whole = jax.tree.map(lambda x: x, t)
    same = tree.complete(lambda p: p, whole)(t)
    assert jax.tree.structure(same) == jax.tree.structure(t)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_norm_has_finite_derivatives_at_any_scale(scale):
    t = {"a": scale * jnp.array([3.0, 0.0]), "b": scale * jnp.array(4.0)}
    np.testing.assert_allclose(tree.norm(t), 5 * scale, rtol=1e-6)
    grads = jax.grad(tree.norm)(t)
    want = [0.6, 0.0, 0.8] if scale else [0.0, 0.0, 0.0]
    np.testing.assert_allclose([*grads["a"], grads["b"]], want, rtol=1e-6)
    if scale != 1e-30:  # the curvature itself is 1 / scale
        hessian = jax.hessian(tree.norm)(t)
        assert all(np.isfinite(h).all() for h in jax.tree.leaves(hessian))


def test_an_empty_tree():
    assert tree.norm({}) == tree.dot({}, {}) == tree.peak({}) == 0


def test_none_beside_a_leaf_leaves_it_alone():
    w = jnp.ones(2)
    assert tree.add_scaled({"w": w}, 2.0, {"w": None})["w"] is w


def test_differences_are_named_by_path():
    reference = {"a": jnp.ones(2), "b": [jnp.ones(3), jnp.ones(4)]}
    other = {"a": optax.MaskedNode(), "b": [jnp.ones((3, 1))], "c": jnp.ones(1)}
    with as_users_see_it(), pytest.raises(ValueError) as caught:  # noqa: PT011
        tree.check_alike("params", other, reference)
    assert str(caught.value) == (
        "params: ['b'][1] is missing; ['c'] is not wanted; "
        "['a'] has shape MaskedNode(), wanted (2,); "
        "['b'][0] has shape (3, 1), wanted (3,)"
    )


def test_f64_stays_f64():
    with jax.enable_x64(True):
        t = {"a": jnp.ones(2, jnp.float64), "b": jnp.ones(1, jnp.float64)}
        with jax.numpy_dtype_promotion("strict"):
            results = [tree.dot(t, t), tree.norm(t), tree.peak(t)]
        assert all(x.dtype == jnp.float64 for x in results)
