"""One training, as a function of whatever is to be differentiated."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxtricks import metagrad, optimizers

from ..small import network, smooth

ACTIVATION = "gelu"


def start(key: Array, images: Array, width: int) -> network.Params:
    return network.init(key, "mlp", images.shape[-3:], width, 10)


def order(key: Array, n: int, updates: int, batch: int) -> Int[Array, "updates batch"]:
    """What each step sees; everything once an epoch, but for what fills no batch."""
    each = n // batch
    keys = jax.random.split(key, -(-updates // each))
    rows = jax.vmap(lambda k: jax.random.permutation(k, n)[: each * batch])(keys)
    return rows.reshape(-1, batch)[:updates]


def adam(peak: float, updates: int) -> optax.GradientTransformation:
    warm = max(1, updates // 10)
    rate = optax.warmup_cosine_decay_schedule(0.0, peak, warm, updates + 1)
    return optimizers.differentiable(optax.adam(rate, eps_root=1e-16))


def train(
    tx: optax.GradientTransformation,
    params: network.Params,
    loss: Callable[[network.Params, Array, Array], Float[Array, ""]],
    rows: Int[Array, "updates batch"],
) -> network.Params:
    """By loss(params, the batch's rows, step); a gradient stores a carry a step."""
    run, init, xs = walk(tx, params, loss, rows)
    return metagrad.scan(run, init, xs, policy="step")[0][0]


def walk(tx, params, loss, rows):
    """(step, init, xs), as `metagrad.scan` and `metagrad.plan` take them."""

    def step(carry, x):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, *x), state, params)
        return (optax.apply_updates(params, updates), state), None

    return step, (params, tx.init(params)), (rows, jnp.arange(len(rows)))


def mean_loss(params: network.Params, of: tuple[Array, Array]) -> Float[Array, ""]:
    return jnp.mean(smooth.each(params, *of, ACTIVATION))
