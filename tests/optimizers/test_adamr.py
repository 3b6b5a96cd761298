"""AdamR: what pretrained weights have to hold."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks import optimizers
from tests.free.common import as_users_see_it

# Decays of 0.5 and 0.75 are exact, and so is 1 less their powers.
PRETRAINED = {"w": jnp.zeros(2), "b": jnp.ones(1)}


def test_a_part_is_pulled_to_its_part():
    tx = optimizers.scale_by_adamr(0.5, 0.75, pretrained=PRETRAINED, weight_decay=0.5)
    part, grads = {"w": jnp.array([1.0, -2.0])}, {"w": jnp.array([0.5, 0.5])}
    steps, _ = tx.update(grads, tx.init(part), part)
    np.testing.assert_allclose(steps["w"], [2.0, -1.0], rtol=1e-6)


def test_without_gradients_the_pull_is_the_decay():
    tx = optimizers.scale_by_adamr(0.5, 0.75, pretrained=PRETRAINED, weight_decay=0.5)
    params = {"w": jnp.array([1.0, -2.0]), "b": jnp.ones(1)}
    grads = {"w": jnp.zeros(2), "b": jnp.zeros(1)}
    steps, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(steps["w"], [0.5, -1.0], rtol=1e-6)
    assert steps["b"] == 0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"w": jnp.zeros(2), "c": jnp.zeros(1)}, r"pretrained: \['c'\] is missing"),
        ({"w": jnp.zeros(3)}, r"pretrained: \['w'\] has shape \(2,\), wanted \(3,\)"),
    ],
)
def test_mistakes_are_named(params, message):
    tx = optimizers.scale_by_adamr(pretrained=PRETRAINED)
    with as_users_see_it(), pytest.raises(ValueError, match=message):
        tx.update(params, tx.init(params), params)
