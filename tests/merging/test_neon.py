"""Neon: ends, a Gaussian whose own samples are too narrow, the alignment's sign."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks import merging
from tests.free.common import as_users_see_it, assert_close, assert_finite
from tests.free.merge import floats, make_tree


def test_ends():
    base, tree = make_tree(0), make_tree(1)
    assert_close(merging.neon(base, tree, weight=0.0), base)
    assert_close(merging.neon(base, tree, weight=-1.0), tree)
    got = jax.jit(lambda w: merging.neon(base, tree, weight=w))(0.7)
    forgot = merging.add_task_vectors(
        base, [merging.task_vector(base, tree)], scale=-0.7
    )
    for a, b in zip(*map(floats, (got, forgot)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_weight_a_layer():
    base, tree = make_tree(0), make_tree(1)
    weight = {"layer": [0.5, 0.0], "scale": -1.0, "steps": 0.0}
    got = merging.neon(base, tree, weight=weight)
    assert_close(got["layer"][1], base["layer"][1])
    assert_close(got["scale"], tree["scale"])
    half = merging.neon(base, tree, weight=0.5)
    assert_close(got["layer"][0], half["layer"][0])


def test_a_gaussian_is_widened_towards_the_truth():
    # A model that is too narrow, and whose sampler makes it narrower still.
    truth, base = 1.0, {"log_sigma": jnp.log(jnp.float32(0.8))}
    sampled = {"log_sigma": jnp.log(jnp.float32(0.8 * 0.9))}

    def loss(params):  # E of -log p of the truth
        s = params["log_sigma"]
        return s + truth**2 / (2 * jnp.exp(2 * s))

    better = merging.neon(base, sampled, weight=0.5)
    assert loss(better) < loss(base)
    assert merging.neon_alignment(jax.grad(loss)(base), base, sampled) == 1
    wide = {"log_sigma": jnp.log(jnp.float32(1.3))}
    narrowed = {"log_sigma": jnp.log(jnp.float32(1.2))}
    assert loss(merging.neon(wide, narrowed, weight=0.1)) > loss(wide)
    assert merging.neon_alignment(jax.grad(loss)(wide), wide, narrowed) == -1


def test_no_change_has_no_direction():
    base = jnp.ones(3)
    assert merging.neon_alignment(base, base, base) == 0
    assert merging.neon_alignment(0 * base, base, 2 * base) == 0
    grads = jax.grad(merging.neon_alignment, argnums=(0, 1, 2))(0 * base, base, base)
    assert_finite(grads)
    huge = merging.neon_alignment(1e30 * base, base, base + 1e-20)
    assert np.isfinite(huge)


def test_mistakes_are_named():
    base, tree = make_tree(0), make_tree(1)
    short = {k: v for k, v in tree.items() if k != "scale"}
    with as_users_see_it():
        with pytest.raises(ValueError, match=r"tree: \['scale'\] is missing"):
            merging.neon(base, short)
        with pytest.raises(ValueError, match="weight"):
            merging.neon(base, tree, weight={"layers": 1.0})
        with pytest.raises(ValueError, match=r"grads: \['scale'\] is missing"):
            merging.neon_alignment(short, base, tree)
