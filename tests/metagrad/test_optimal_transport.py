"""Entropic transport: marginals, the dual's derivative, and starts that are learned."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks.metagrad import (
    dual_potential,
    meta_ot,
    sinkhorn_dual,
    sinkhorn_potentials,
)
from tests.free.common import as_users_see_it, assert_close, assert_finite
from tests.inputs import rng

_r = rng(98)
A, B = _r.dirichlet(np.ones(5)), _r.dirichlet(np.ones(4))
COST, F = _r.uniform(size=(5, 4)), _r.normal(size=5)
EPSILON = 0.2
solve = jax.jit(
    functools.partial(sinkhorn_potentials, epsilon=EPSILON, steps=300, tolerance=1e-9)
)


def test_one_marginal_is_exact_and_the_other_is_the_duals_derivative():

    @jax.jit
    def found(f):
        g = dual_potential(f, B, COST, epsilon=EPSILON)
        slope = jax.grad(meta_ot)(f, A, B, COST, epsilon=EPSILON)
        by_f = jax.grad(sinkhorn_dual)(f, g, A, B, COST, epsilon=EPSILON)
        return g, slope, by_f

    with jax.enable_x64(True):
        g, slope, by_f = map(np.asarray, found(F))
    plan = np.exp((F[:, None] + g[None] - COST) / EPSILON)
    np.testing.assert_allclose(plan.sum(0), B, rtol=1e-12)
    np.testing.assert_allclose(slope, plan.sum(1) - A, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(by_f, -slope, rtol=1e-10, atol=1e-14)


def test_the_loss_is_least_at_the_solution():
    with jax.enable_x64(True):
        found = solve(A, B, COST)
        least = meta_ot(found.f, A, B, COST, epsilon=EPSILON)
        for scale in (1e-2, 1.0):
            assert meta_ot(found.f + scale * F, A, B, COST, epsilon=EPSILON) > least
        shifted = meta_ot(found.f + 3, A, B, COST, epsilon=EPSILON)
        np.testing.assert_allclose(shifted, least, rtol=1e-10)
        # Minus the cost with its entropy, whose derivative in the costs is the plan.
        entropy = np.sum(found.plan * (np.log(found.plan) - 1)) + 1
        primal = np.sum(found.plan * COST) + EPSILON * entropy
        np.testing.assert_allclose(-least, primal, rtol=1e-8)
        by_cost = jax.grad(meta_ot, argnums=3)(found.f, A, B, COST, epsilon=EPSILON)
        np.testing.assert_allclose(-by_cost, found.plan, rtol=1e-6)
        assert found.error < 1e-9
        again = solve(A, B, COST, start=found.f)
        assert again.iterations == 0
        assert found.iterations > 5
        near = solve(A, B, COST, start=found.f + 1e-4 * F)
        assert near.iterations < found.iterations


def test_empty_places_and_finite_gradients():
    a = np.array([0.5, 0.5, 0, 0, 0], np.float32)
    b = np.array([0.25, 0.0, 0.75, 0], np.float32)
    cost = COST.astype(np.float32)
    found = jax.jit(functools.partial(sinkhorn_potentials, epsilon=0.5, steps=50))(
        a, b, cost
    )
    assert not np.isnan(found.plan).any()
    np.testing.assert_array_equal(found.plan[:, 1], 0)
    np.testing.assert_array_equal(found.plan[2], 0)
    loss = functools.partial(meta_ot, epsilon=0.01)
    slopes = jax.jit(jax.grad(loss, argnums=(0, 3)))
    grads = slopes(100 * F.astype(np.float32), a, b, cost)
    assert_finite(grads)
    each = jax.jit(jax.vmap(loss, (0, None, None, None)))(np.stack([F, -F]), A, B, COST)
    assert_close(each[1], jax.jit(loss)(-F, A, B, COST), rtol=1e-5)


def test_a_network_learns_to_start_near_the_solution():
    """Potentials affine in log b, over problems that share their costs."""
    masses = rng(99).dirichlet(np.ones(4), size=20).astype(np.float32)
    a, cost = A.astype(np.float32), COST.astype(np.float32)

    def loss(w, b):
        f = jnp.concatenate([jnp.log(b), jnp.ones(1)]) @ w
        return meta_ot(f, a, b, cost, epsilon=EPSILON)

    @jax.jit
    def learn():
        def step(w, _):
            grads = jax.grad(lambda w: jnp.mean(jax.vmap(loss, (None, 0))(w, masses)))(
                w
            )
            return w - 0.5 * grads, None

        return jax.lax.scan(step, jnp.zeros((5, 5)), length=400)[0]

    w, b = learn(), masses[3]
    start = jnp.concatenate([jnp.log(b), jnp.ones(1)]) @ w
    run = jax.jit(functools.partial(sinkhorn_potentials, epsilon=EPSILON, steps=100))
    assert run(a, b, cost, start=start).iterations < run(a, b, cost).iterations


def test_mistakes():
    for call, message in (
        (lambda: meta_ot(F, A, B, COST.T), r"cost: wanted shape \(5, 4\)"),
        (lambda: meta_ot(F, A, B, COST, epsilon=0), "epsilon: wanted > 0, came 0"),
        (lambda: sinkhorn_dual(F, B, B, B, COST), r"a: wanted shape \(5,\)"),
        (lambda: sinkhorn_potentials(A, B, COST, steps=-1), "steps: wanted >= 0"),
        (
            lambda: sinkhorn_potentials(A, B, COST, start=B),
            r"start: wanted shape \(5,\)",
        ),
    ):
        with as_users_see_it(), pytest.raises(ValueError, match=message):
            call()
