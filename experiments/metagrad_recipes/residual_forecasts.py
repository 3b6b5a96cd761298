"""Forecasts of unseen kinds of series, by blocks that take off what they explain.

x_l = x_{l-1} - backcast_l(x_{l-1}),   y = sum_l forecast_l(x_{l-1})

With the blocks' weights shared, the stack is an inner loop: each block adapts the
forecast to what is left of this series.

Source: Oreshkin et al., "Meta-learning framework with applications to zero-shot
time-series forecasting", 2020, arXiv:2002.02887. Differs: synthetic seasonal series;
plain blocks of one hidden layer.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

PAST, AHEAD, WIDTH = 24, 6, 32


def smape(
    said: Float[Array, "*b h"], truth: Float[Array, "*b h"]
) -> Float[Array, "*b"]:
    """200 mean |y - y'| / (|y| + |y'|), in percent; 0 where both are 0."""
    size = jnp.abs(said) + jnp.abs(truth)
    share = jnp.where(size > 0, jnp.abs(said - truth) / jnp.where(size > 0, size, 1), 0)
    return 200 * jnp.mean(share, axis=-1)


def block(params: PyTree, x: Float[Array, " past"]) -> tuple[Array, Array]:
    hidden = jax.nn.relu(x @ params["in"] + params["bias"])
    return hidden @ params["back"], hidden @ params["ahead"]


def stack(params: list[PyTree], x: Float[Array, " past"]) -> Float[Array, " ahead"]:
    """One block after the other; the same one several times shares its weights."""
    total = jnp.zeros(AHEAD)
    for one in params:
        back, ahead = block(one, x)
        x, total = x - back, total + ahead
    return total


def start(key: Key[Array, ""]) -> PyTree:
    keys = jax.random.split(key, 3)
    return {
        "in": jax.random.normal(keys[0], (PAST, WIDTH)) / PAST**0.5,
        "bias": jnp.zeros(WIDTH),
        "back": 0.1 * jax.random.normal(keys[1], (WIDTH, PAST)) / WIDTH**0.5,
        "ahead": 0.1 * jax.random.normal(keys[2], (WIDTH, AHEAD)) / WIDTH**0.5,
    }


def series(key: Key[Array, ""], count: int, low: float, high: float) -> Array:
    """Seasons whose period is drawn from [low, high], a level, a little noise."""

    def one(key):
        keys = jax.random.split(key, 4)
        period = jax.random.uniform(keys[0], minval=low, maxval=high)
        phase = jax.random.uniform(keys[1], maxval=6.28)
        level = jax.random.uniform(keys[2], minval=2.0, maxval=3.0)
        t = jnp.arange(PAST + AHEAD)
        noise = 0.05 * jax.random.normal(keys[3], t.shape)
        return level + jnp.sin(6.2832 * t / period + phase) + noise

    return jax.vmap(one)(jax.random.split(key, count))


def run(quick: bool = False) -> dict[str, float]:
    """sMAPE on slower seasons than those trained on, by the number of blocks that share
    their weights; of one seed, which shows no trend."""
    rounds, tx = 200 if quick else 5000, optax.adam(3e-3)

    def forecast(params, x, blocks):
        level = jnp.mean(x)
        return level + stack([params] * blocks, x - level)

    def loss(params, values, blocks):
        said = jax.vmap(lambda x: forecast(params, x, blocks))(values[:, :PAST])
        return jnp.mean(smape(said, values[:, PAST:]))

    def learn(blocks):
        def step(carry, key):
            params, state = carry
            grads = jax.grad(loss)(params, series(key, 64, 5.0, 11.0), blocks)
            updates, state = tx.update(grads, state)
            return (optax.apply_updates(params, updates), state), None

        first = start(jax.random.key(0))
        keys = jax.random.split(jax.random.key(1), rounds)
        params = jax.lax.scan(step, (first, tx.init(first)), keys)[0][0]
        return loss(params, series(jax.random.key(2), 500, 11.0, 14.0), blocks)

    found = {}
    for blocks in (1, 2) if quick else (1, 2, 4, 8):
        found[f"blocks: {blocks}"] = float(jax.jit(learn, static_argnums=0)(blocks))
    return found
