"""AdaMerging: layer-wise coefficients, the clip, and a descent by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtricks import losses, merging
from tests.free.common import as_users_see_it, assert_close
from tests.free.merge import floats, make_tree, make_trees


def test_a_coefficient_a_layer():
    base, trees = make_tree(0), make_trees()
    everywhere = jnp.array([0.2, 0.7, 0.4])
    by_layer = jax.tree.map(lambda _: everywhere, base)
    want = merging.adamerging(base, trees, coefficients=everywhere)
    assert_close(merging.adamerging(base, trees, coefficients=by_layer), want)
    listed = merging.adamerging(base, trees, coefficients=[0.2, 0.7, 0.4])
    assert_close(floats(listed), floats(want), rtol=1e-6)
    by_layer["scale"] = jnp.array([0.0, 1.0, 0.0])
    got = merging.adamerging(base, trees, coefficients=by_layer)
    assert_close(got["scale"], trees[1]["scale"], rtol=1e-6)
    assert_close(got["layer"], want["layer"])


def test_it_is_task_arithmetic_in_the_unit_interval():
    base, trees = make_tree(0), make_trees()
    w = jnp.array([-0.5, 0.4, 1.5])
    vectors = [merging.task_vector(base, tree) for tree in trees]
    free = merging.adamerging(base, trees, coefficients=w, clip=False)
    want = merging.add_task_vectors(base, vectors, weights=w)
    assert_close(floats(free), floats(want), rtol=1e-5)
    held = merging.adamerging(base, trees, coefficients=w)
    want = merging.add_task_vectors(base, vectors, weights=jnp.array([0, 0.4, 1]))
    assert_close(floats(held), floats(want), rtol=1e-5)

    def loss(w):
        merged = merging.adamerging(base, trees, coefficients=w)
        return jnp.sum(merged["layer"][0]["w"] ** 2)

    slope = jax.grad(loss)(w)
    assert slope[0] == slope[2] == 0
    assert slope[1] != 0


def test_entropy_is_descended():
    rng = np.random.default_rng(81)
    base = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
    trees = [base + jnp.asarray(rng.normal(size=(4, 3)), jnp.float32) for _ in "ab"]
    x = jnp.asarray(rng.normal(size=(30, 8, 4)), jnp.float32)

    def objective(c, x):
        merged = merging.adamerging(base, trees, coefficients=c)
        return jnp.mean(losses.entropy(x @ merged))

    start = jnp.full(2, 0.3)
    tx = optax.adam(1e-2)
    c, values = merging.fit_coefficients(objective, start, x, optimizer=tx)
    assert values.shape == (30,)
    assert float(objective(c, x[0])) < float(values[0])
    by_hand, state = start, tx.init(start)
    for batch in x[:3]:
        updates, state = tx.update(jax.grad(objective)(by_hand, batch), state, by_hand)
        by_hand = optax.apply_updates(by_hand, updates)
    short, _ = merging.fit_coefficients(objective, start, x[:3], optimizer=tx)
    assert_close(short, by_hand, rtol=1e-5)


def test_mistakes_are_named():
    base, trees = make_tree(0), make_trees()
    with as_users_see_it():
        with pytest.raises(ValueError, match="coefficients: wanted shape"):
            merging.adamerging(base, trees, coefficients={**base, "steps": 1})
        with pytest.raises(ValueError, match="coefficients: wanted a prefix tree"):
            merging.adamerging(base, trees, coefficients={"layers": jnp.ones(3)})
