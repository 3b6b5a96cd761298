"""`complete`: a gradient function of all parameters, for a part of them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtricks import sharpness

PARAMS = {"in": {"w": np.ones((2, 3), np.float32)}, "out": [np.ones(3), np.int32(4)]}
HOLE = optax.MaskedNode()


def doubled(params):
    return jax.tree.map(lambda x: 2 * x, params)


def test_without_holes_nothing_changes():
    got = sharpness.complete(doubled, PARAMS)(PARAMS)
    assert jax.tree.structure(got) == jax.tree.structure(PARAMS)
    assert got["out"][1] == 8


def test_holes_are_filled_and_cut_again():
    seen = []

    def grad_fn(params):
        seen.append(params)
        return doubled(params)

    part = {"in": {"w": jnp.zeros((2, 3))}, "out": [HOLE, np.int32(1)]}
    got = sharpness.complete(grad_fn, PARAMS)(part)
    np.testing.assert_array_equal(seen[0]["in"]["w"], 0)
    np.testing.assert_array_equal(seen[0]["out"][0], PARAMS["out"][0])
    assert got["out"] == [HOLE, 2]


def test_one_hole_may_stand_for_a_whole_branch():
    """A mask may be a prefix tree."""
    got = sharpness.complete(doubled, PARAMS)({"in": HOLE, "out": PARAMS["out"]})
    assert got["in"] == HOLE
    np.testing.assert_array_equal(got["out"][0], 2)


def test_the_gradient_flows_into_what_fills_the_holes():
    def objective(scale):
        params = {"a": scale * jnp.ones(2), "b": jnp.ones(2)}
        grad_fn = sharpness.complete(
            jax.grad(lambda p: jnp.sum(p["a"] ** 2 * p["b"])), params
        )
        return jnp.sum(grad_fn({"a": HOLE, "b": params["b"]})["b"])  # 2 scale^2

    np.testing.assert_allclose(jax.grad(objective)(3.0), 12.0)
