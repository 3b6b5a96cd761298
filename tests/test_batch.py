"""The whole batch is the same array in six settings, and so is its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxtricks._batch import share, total, whole
from tests.free import common
from tests.free.common import assert_close

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


def centred_ranks(x, axis_name=None):
    """Sorts over the whole batch: refused on an Explicit mesh without `whole`."""
    full = whole(x, axis_name)
    order = jnp.argsort(jnp.argsort(full, axis=0), axis=0).astype(full.dtype)
    return share(order * full - jnp.mean(full, 0, keepdims=True), x, axis_name)


def objective(x, axis_name=None):
    return jnp.sum(jnp.sin(centred_ranks(x, axis_name)))


WANT = (centred_ranks(X), jax.grad(objective)(jnp.asarray(X)))


def both(x, axis_name=None):
    return centred_ranks(x, axis_name), jax.grad(objective)(x, axis_name)


@pytest.mark.parametrize("spec", [("data",), ("data", "model"), (("data", "model"),)])
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_meshes(kind, spec):
    x = np.concatenate([X, X + 1], axis=1)[:, :4]
    want = both(jnp.asarray(x))
    with jax.set_mesh(common.mesh(kind)):
        got = jax.jit(both)(common.put(x, kind, *spec))
        if kind == AxisType.Explicit:
            assert got[0].sharding.spec[0] == spec[0], "the part comes back sharded"
    assert_close(got, want, rtol=1e-5)


def test_shard_map_over_one_and_two_axes():
    mesh = common.mesh(AxisType.Auto)
    for axes in ("data", ("data", "model")):
        f = jax.shard_map(
            lambda x, axes=axes: both(x, axes),
            mesh=mesh,
            in_specs=P(axes),
            out_specs=P(axes),
        )
        assert_close(jax.jit(f)(X), WANT, rtol=1e-5)


def test_pmap_and_vmap():
    out = jax.pmap(lambda x: both(x, "data"), "data")(X.reshape(8, 1, 3))
    assert_close([x.reshape(8, 3) for x in out], WANT, rtol=1e-5)
    f = jax.vmap(lambda x: both(x, "data"), axis_name="data")
    assert_close([x.reshape(8, 3) for x in f(X.reshape(4, 2, 3))], WANT, rtol=1e-5)


def test_one_example_a_device():
    """A scalar part is an example of its own."""

    def share_of_sum(x):
        full = whole(x, "data")
        return share(full / jnp.sum(full), x, "data")

    x = np.arange(1.0, 9, dtype=np.float32)
    out = jax.vmap(share_of_sum, axis_name="data")(x)
    assert_close(out, x / x.sum())


def test_total_is_replicated():
    f = jax.shard_map(
        lambda x: total(x, "data"),
        mesh=common.mesh(AxisType.Auto),
        in_specs=P("data"),
        out_specs=P(),
    )
    assert_close(jax.jit(f)(X), X.sum(), rtol=1e-5)
