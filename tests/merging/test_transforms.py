"""Merges that the free checks do not fit: under jit, vmap, grad, and on meshes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxtricks import merging
from tests.free import common
from tests.free.merge import floats

KEY = jax.random.key(0)
MERGES = {
    "slerp": lambda base, trees, t: merging.slerp(trees[:2], t=t),
    "nuslerp": lambda base, trees, t: merging.nuslerp(
        trees[:2], base=base, weights=[t, 1.0], rows=True
    ),
    "model_stock": lambda base, trees, t: merging.model_stock(
        base, [toward(base, tree, t) for tree in trees], rows=True
    ),
    "nearswap": lambda base, trees, t: merging.nearswap(base, trees[0], t=t),
    "arcee_fusion": lambda base, trees, t: merging.arcee_fusion(
        base, toward(base, trees[0], t)
    ),
    "dare": lambda base, trees, t: merging.dare(
        base, trees, density=t, key=KEY, weights=[t, 1.0, t]
    ),
    "della": lambda base, trees, t: merging.della(
        base, trees, density=0.5, epsilon=0.2, key=KEY, weights=[t, 1.0, t]
    ),
}
each = pytest.mark.parametrize("merge", MERGES.values(), ids=MERGES)


def toward(base, tree, t):
    return jax.tree.map(lambda b, x: (b + t * (x - b)).astype(x.dtype), base, tree)


def models(dtype):
    """A base and three models: a matrix, a scalar and a counter."""
    rng = np.random.default_rng(17)
    for _ in range(4):
        yield {
            "w": jnp.asarray(rng.normal(size=(8, 4)), dtype),
            "scale": jnp.asarray(rng.normal(), dtype),
            "steps": jnp.int32(3),
        }


@each
def test_a_vmap_of_gradients(merge):
    """In f64, against the values to both sides; dare's mask depends on t in steps."""
    with jax.enable_x64(True):
        base, *trees = models(jnp.float64)

        def objective(t):
            return sum(jnp.sum(jnp.sin(x)) for x in floats(merge(base, trees, t)))

        near = 0.4 + 1e-6 * jnp.arange(-1.0, 2.0)
        values, slopes = jax.jit(jax.vmap(jax.value_and_grad(objective)))(near)
        want = (values[2] - values[0]) / 2e-6
        np.testing.assert_allclose(slopes[1], want, rtol=1e-6, atol=1e-8)


@each
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_sharded_models_stay_sharded(merge, kind):
    base, *trees = models(jnp.float32)
    want = jax.jit(merge)(base, trees, 0.4)
    with jax.set_mesh(common.mesh(kind)):
        base, trees = jax.tree.map(
            lambda x: common.put(x, kind, *("data", "model")[: x.ndim]), (base, trees)
        )
        got = jax.jit(merge)(base, trees, 0.4)
    common.assert_close(got, want, rtol=1e-6)
    assert got["w"].sharding.spec == P("data", "model")
