"""Energies learnt over a family of systems, adapted to a new one in a few steps.

(dq, dp) = (dH/dp, -dH/dq),   loss = |dq - dH/dp|^2 + |dp + dH/dq|^2, by MAML

Source: Song and Jeong, "Towards Cross Domain Generalization of Hamiltonian
Representation via Meta Learning", 2022, arXiv:2212.01168. Differs: a small perceptron
in place of a graph network; pendulums and springs.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from jaxtricks import metagrad


def symplectic_field(energy: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """State [q, p] -> its rate of change, whatever the number of coordinates."""

    def field(state):
        by_q, by_p = jnp.split(jax.grad(energy)(state), 2)
        return jnp.concatenate([by_p, -by_q])

    return field


def leapfrog(energy, state: Float[Array, " d"], *, dt: float, steps: int) -> Array:
    """The states of a path, [steps, d], for an energy that is a sum of q's and p's."""
    field = symplectic_field(energy)

    def step(state, _):
        q, p = jnp.split(state, 2)
        p = p + dt / 2 * jnp.split(field(state), 2)[1]
        q = q + dt * jnp.split(field(jnp.concatenate([q, p])), 2)[0]
        p = p + dt / 2 * jnp.split(field(jnp.concatenate([q, p])), 2)[1]
        state = jnp.concatenate([q, p])
        return state, state

    return jax.lax.scan(step, state, length=steps)[1]


def network(params: PyTree, state: Float[Array, " d"]) -> Float[Array, ""]:
    hidden = jnp.tanh(state @ params["in"] + params["bias"])
    return jnp.tanh(hidden @ params["middle"]) @ params["out"]


def loss(params: PyTree, batch: tuple[Array, Array]) -> Array:
    """Mean squared error of the derivatives."""
    states, rates = batch
    said = jax.vmap(symplectic_field(partial(network, params)))(states)
    return jnp.mean(jnp.sum((said - rates) ** 2, axis=-1))


def truth(kind: Array, stiffness: Array, state: Float[Array, " d"]) -> Array:
    """A pendulum or a spring."""
    q, p = state
    return p**2 / 2 + stiffness * jnp.where(kind == 0, 1 - jnp.cos(q), q**2 / 2)


def draw(key: Key[Array, ""], count: int) -> PyTree:
    """Supports and queries of twenty states."""

    def one(key):
        keys = jax.random.split(key, 3)
        kind = jax.random.bernoulli(keys[0]).astype(jnp.int32)
        stiffness = jax.random.uniform(keys[1], minval=0.5, maxval=2.0)
        states = jax.random.uniform(keys[2], (2, 20, 2), minval=-2.0, maxval=2.0)
        field = symplectic_field(partial(truth, kind, stiffness))
        rates = jax.vmap(jax.vmap(field))(states)
        return (states[0], rates[0]), (states[1], rates[1])

    return jax.vmap(one)(jax.random.split(key, count))


def start(key: Key[Array, ""], width: int = 32) -> PyTree:
    keys = jax.random.split(key, 3)
    return {
        "in": jax.random.normal(keys[0], (2, width)),
        "bias": jnp.zeros(width),
        "middle": jax.random.normal(keys[1], (width, width)) / width**0.5,
        "out": jax.random.normal(keys[2], (width,)) / width**0.5,
    }


def run(quick: bool = False) -> dict[str, float]:
    """The loss on new systems before and after five steps, from MAML's start and from a
    joint one, each at the best of three rates."""
    rounds, tx, found = 300 if quick else 3000, optax.adam(3e-3), {}
    new, others = draw(jax.random.key(2), 200), draw(jax.random.key(3), 200)

    @jax.jit
    def reached(params):
        """At the rate that is best on other systems."""
        after = partial(metagrad.maml, loss, params, steps=5, policy="none")
        rates = jnp.array([0.006, 0.02, 0.06])
        tried = jax.lax.map(lambda rate: after(others, rate=rate), rates)
        best = rates[jnp.nanargmin(tried)]
        return metagrad.maml(loss, params, new, steps=0), after(new, rate=best)

    for name, steps in {"joint": 0, "MAML": 3}.items():
        settings = {"rate": 0.02, "steps": steps, "policy": "none"}

        @jax.jit
        def learn(params, settings=settings):
            def step(carry, key):
                params, state = carry
                f = partial(metagrad.maml, loss, tasks=draw(key, 8), **settings)
                updates, state = tx.update(jax.grad(f)(params), state)
                return (optax.apply_updates(params, updates), state), None

            keys = jax.random.split(jax.random.key(1), rounds)
            return jax.lax.scan(step, (params, tx.init(params)), keys)[0][0]

        before, after = reached(learn(start(jax.random.key(0))))
        found |= {f"{name}: before": float(before), f"{name}: after": float(after)}
    return found
