"""What the kinds of checks share: comparisons, meshes, errors as a user sees them."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import config


def is_float(x) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def cast_floats(tree, dtype):
    """The tree with its float leaves, Python floats too, as arrays of `dtype`."""
    return jax.tree.map(lambda x: jnp.asarray(x, dtype) if is_float(x) else x, tree)


def assert_close(got, want, rtol=2e-6, what="") -> None:
    """Equal trees up to rounding of the largest entry of each leaf."""
    got_leaves, want_leaves = jax.tree.leaves(got), jax.tree.leaves(want)
    assert len(got_leaves) == len(want_leaves), what
    for a, b in zip(got_leaves, want_leaves, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        scale = np.max(np.abs(b), initial=1e-30, where=np.isfinite(b))
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale, err_msg=what)


def assert_finite(tree, what="") -> None:
    for leaf in jax.tree.leaves(tree):
        assert np.isfinite(np.asarray(leaf, np.float64)).all(), f"{what}: {leaf}"


def assert_no_nan(tree, what="") -> None:
    for leaf in jax.tree.leaves(tree):
        assert not np.isnan(np.asarray(leaf, np.float64)).any(), f"{what}: {leaf}"


@functools.cache
def mesh(kind: AxisType) -> jax.sharding.Mesh:
    """8 CPU devices as (data=4, model=2), with Auto or Explicit axes."""
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind,) * 2)


def put(x, kind: AxisType, *spec):
    return jax.device_put(x, NamedSharding(mesh(kind), P(*spec)))


@contextlib.contextmanager
def as_users_see_it():
    """Without the shape checks that the tests add, so that our own errors show."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", before)


def raises(fn, *args, naming: str, **kwargs) -> None:
    """`fn` refuses with a ValueError that names the argument."""
    with as_users_see_it(), pytest.raises(ValueError, match=naming):
        jax.eval_shape(lambda: fn(*args, **kwargs))


def direction(tree, seed=0):
    """A generic tangent of the tree's shapes."""
    leaves, treedef = jax.tree.flatten(tree)
    rng = np.random.default_rng(seed)
    tangents = [
        jnp.asarray(rng.normal(size=np.shape(x)), jnp.result_type(x)) for x in leaves
    ]
    return jax.tree.unflatten(treedef, tangents)


def inner(a, b) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return float(sum(jnp.vdot(x, y) for x, y in pairs))


def shift(tree, step, tangent):
    return jax.tree.map(lambda x, v: x + step * v, tree, tangent)
