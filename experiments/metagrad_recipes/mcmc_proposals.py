"""Proposals for blocks of variables, learnt from the prior: nearly a Gibbs sampler.

q(x_B | x_rest, parameters) is a mixture of normals whose parameters a network gives,
trained by -log q on draws from the model itself; Metropolis-Hastings corrects it.

Source: Wang et al., "Meta-Learning MCMC Proposals", 2017, arXiv:1708.06040. Differs: a
family of correlated normals in the plane, blocks of one variable.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

PARTS, WIDTH = 2, 16


def mixture(phi: PyTree, seen: Float[Array, " k"]) -> tuple[Array, Array, Array]:
    """Log weights, means and log deviations of the proposal."""
    hidden = jnp.tanh(seen @ phi["in"] + phi["bias"])
    logits, means, scales = jnp.split(hidden @ phi["out"] + phi["last"], 3)
    return jax.nn.log_softmax(logits), means, scales


def log_density(phi: PyTree, x: Array, seen: Float[Array, " k"]) -> Array:
    weights, means, scales = mixture(phi, seen)
    away = (x - means) * jnp.exp(-scales)
    each = weights - scales - away**2 / 2 - jnp.log(2 * jnp.pi) / 2
    return jax.nn.logsumexp(each)


def propose(phi: PyTree, seen: Float[Array, " k"], *, key: Key[Array, ""]) -> Array:
    weights, means, scales = mixture(phi, seen)
    which, noise = jax.random.split(key)
    part = jax.random.categorical(which, weights)
    return means[part] + jnp.exp(scales[part]) * jax.random.normal(noise)


def block_step(log_target, draw, log_q, x: Array, block, *, key) -> tuple[Array, Array]:
    """Metropolis-Hastings on x[block]: the next state, and the chance of accepting.

    draw(x, key) and log_q(value, x) see the rest of x alone.
    """
    by_draw, by_accept = jax.random.split(key)
    new = x.at[block].set(draw(x, by_draw))
    odds = log_target(new) - log_target(x)
    odds = odds + log_q(x[block], new) - log_q(new[block], x)
    chance = jnp.exp(jnp.minimum(odds, 0.0))
    return jnp.where(jax.random.uniform(by_accept) < chance, new, x), chance


def start(key: Key[Array, ""]) -> PyTree:
    first, second = jax.random.split(key)
    return {
        "in": jax.random.normal(first, (2, WIDTH)),
        "bias": jnp.zeros(WIDTH),
        "out": 0.3 * jax.random.normal(second, (WIDTH, 3 * PARTS)),
        "last": jnp.zeros(3 * PARTS),
    }


def prior(key: Key[Array, ""]) -> tuple[Array, Array]:
    """A correlation, and a pair of normals that has it."""
    first, second = jax.random.split(key)
    rho = jax.random.uniform(first, minval=-0.9, maxval=0.9)
    a, b = jax.random.normal(second, (2,))
    return rho, jnp.stack([a, rho * a + jnp.sqrt(1 - rho**2) * b])


def run(quick: bool = False) -> dict[str, float]:
    """-log q before and after learning, and its least, the entropy; at a correlation of
    0.8 how often proposals are accepted, and the chain's correlation."""
    rounds, tx, rho = 500 if quick else 5000, optax.adam(5e-3), 0.8

    def one(phi, key):
        rho, x = prior(key)
        return -log_density(phi, x[0], jnp.stack([x[1], rho]))

    def loss(phi, key, count=128):
        return jnp.mean(jax.vmap(one, (None, 0))(phi, jax.random.split(key, count)))

    @jax.jit
    def learn(phi):
        def step(carry, key):
            phi, state = carry
            updates, state = tx.update(jax.grad(loss)(phi, key), state)
            return (optax.apply_updates(phi, updates), state), None

        keys = jax.random.split(jax.random.key(1), rounds)
        return jax.lax.scan(step, (phi, tx.init(phi)), keys)[0][0]

    def target(x):
        return -(x @ x - 2 * rho * x[0] * x[1]) / (2 * (1 - rho**2))

    @jax.jit
    def chain(phi):
        def step(x, xs):
            i, key = xs
            block = i % 2
            seen = lambda x: jnp.stack([x[1 - block], rho])  # noqa: E731
            x, chance = block_step(
                target,
                lambda x, key: propose(phi, seen(x), key=key),
                lambda value, x: log_density(phi, value, seen(x)),
                x,
                block,
                key=key,
            )
            return x, (x, chance)

        count = 4000
        keys = jax.random.split(jax.random.key(2), count)
        return jax.lax.scan(step, jnp.zeros(2), (jnp.arange(count), keys))[1]

    first = start(jax.random.key(0))
    learnt = learn(first)
    (_, chance_before), (x, chance) = chain(first), chain(learnt)
    test = jax.random.key(3)
    rhos = jax.vmap(prior)(jax.random.split(test, 2000))[0]
    least = jnp.mean(jnp.log(2 * jnp.pi * jnp.e * (1 - rhos**2)) / 2)
    return {
        "-log q before": float(loss(first, test, 2000)),
        "-log q learnt": float(loss(learnt, test, 2000)),
        "entropy": float(least),
        "accepted before": float(jnp.mean(chance_before)),
        "accepted learnt": float(jnp.mean(chance)),
        "correlation": float(jnp.corrcoef(x.T)[0, 1]),
    }
