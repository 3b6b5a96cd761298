"""Masks and labels at any shape."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxtricks._mask import at_label, at_least_f32, blank, one_hot
from tests.free.common import as_users_see_it

SHAPES = st.lists(st.integers(0, 3), max_size=2).map(tuple)


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(batch=SHAPES, classes=st.integers(1, 4), seed=st.integers(0, 99))
def test_at_label_is_numpy_indexing(batch, classes, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(*batch, classes)).astype(np.float32)
    labels = rng.integers(0, classes, size=batch, dtype=np.int32)
    want = np.take_along_axis(x, labels[..., None], axis=-1)[..., 0]
    np.testing.assert_array_equal(at_label(jnp.asarray(x), labels), want)


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(batch=SHAPES, rest=SHAPES, seed=st.integers(0, 99))
def test_blank_is_numpy_where(batch, rest, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=batch + rest).astype(np.float32)
    where = rng.random(size=batch) > 0.5
    full = where.reshape(batch + (1,) * len(rest))
    np.testing.assert_array_equal(blank(x, where, 2), np.where(full, x, 2))


def test_at_label_out_of_range_is_nan():
    x = jnp.ones((4, 3))
    picked = at_label(x, jnp.array([0, 3, -1, -3]))
    np.testing.assert_array_equal(np.isnan(picked), [False, True, True, True])


def test_at_label_reads_past_infinite_neighbours():
    x = jnp.array([[1.0, -jnp.inf, 3.0]])
    assert at_label(x, jnp.array([2]))[0] == 3
    grad = jax.grad(lambda x: at_label(x, jnp.array([2]))[0])(x)
    np.testing.assert_array_equal(grad, [[0, 0, 1]])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32"])
def test_one_hot_takes_any_integer(dtype):
    hot = one_hot(jnp.array([1, 100], dtype), (2, 3))
    np.testing.assert_array_equal(hot, [[False, True, False], [False] * 3])


def test_more_classes_than_the_label_type_can_count():
    hot = one_hot(jnp.array([3], jnp.int8), (1, 300))
    np.testing.assert_array_equal(np.nonzero(np.asarray(hot))[1], [3])


@pytest.mark.parametrize("labels", [np.zeros(3, int), np.zeros(2, np.float32)])
def test_bad_labels_are_named(labels):
    with as_users_see_it(), pytest.raises(ValueError, match="labels"):
        at_label(jnp.ones((2, 3)), labels)


def test_a_mask_that_does_not_fit_is_named():
    with as_users_see_it(), pytest.raises(ValueError, match="where"):
        blank(jnp.ones((4, 3)), jnp.ones(3, bool))


def test_at_least_f32():
    with jax.enable_x64(True):
        kinds = {"bfloat16": "float32", "int32": "float32", "float64": "float64"}
        for dtype, want in kinds.items():
            assert at_least_f32(jnp.ones(2, dtype)).dtype == want
