"""Which pixels to adapt to: a weight map in MAML's inner loss, learnt with the start.

inner: mean(W |y_a - f(x_a)|), W = mask network of (x_a, y_a);
outer: mean |y_b - f'(x_b)| + 0.001 mean (W - 1)^2

Source: Yin et al., "MetaF2N: Blind Image Super-Resolution by Learning Efficient Model
Adaptation from Faces", 2023, arXiv:2309.08113. Differs: signals of one axis for images;
no perceptual and no adversarial term.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

REGULARIZATION = 0.002 / 2
N = 32


def predict(theta: PyTree, x: Array) -> Array:
    """A filter of five taps and an offset."""
    return jnp.convolve(x, theta["taps"], mode="same") + theta["offset"]


def mask(omega: PyTree, x: Array, y: Array) -> Float[Array, " n"]:
    """A weight for each position, 1 at the start."""
    seen = jnp.stack([x, y, jnp.abs(x - y)], axis=-1)
    return 2 * jax.nn.sigmoid(jnp.tanh(seen @ omega["in"]) @ omega["out"])


def adapt(theta: PyTree, weights: Array, x: Array, y: Array, *, rate=1.0) -> PyTree:
    """One step on the weighted absolute error, as large as offsets lie apart."""

    def loss(theta):
        return jnp.mean(weights * jnp.abs(y - predict(theta, x)))

    return jax.tree.map(lambda w, g: w - rate * g, theta, jax.grad(loss)(theta))


def outer(meta: PyTree, task: PyTree) -> Array:
    """What is minimised in the start and in the mask network."""
    (x, y), (x_new, y_new) = task
    weights = mask(meta["omega"], x, y)
    theta = adapt(meta["theta"], weights, x, y)
    apart = jnp.mean(jnp.abs(y_new - predict(theta, x_new)))
    return apart + REGULARIZATION * jnp.mean((weights - 1) ** 2)


def draw(key: Array) -> tuple[PyTree, Array]:
    """A task, a blur with an offset of its own; and where its targets are spoilt."""
    keys = jax.random.split(key, 4)
    offset = jax.random.normal(keys[0])
    x = jax.random.normal(keys[1], (2, N))
    y = 0.5 * x + offset
    spoilt = jax.random.bernoulli(keys[2], 0.5, (N,))
    wrong = y[0] + 6 + jax.random.normal(keys[3], (N,))
    return ((x[0], jnp.where(spoilt, wrong, y[0])), (x[1], y[1])), spoilt


def start() -> PyTree:
    rng = np.random.default_rng(0)
    return {
        "theta": {"taps": jnp.zeros(5).at[2].set(1.0), "offset": jnp.float32(0)},
        "omega": {
            "in": jnp.asarray(rng.normal(size=(3, 8)), jnp.float32),
            "out": jnp.zeros(8),
        },
    }


def run(quick: bool = False) -> dict[str, float]:
    """The loss of new tasks after a step, with the start alone learnt and with the map;
    and the map's weights where targets are right and where they are spoilt."""
    tx, rounds = optax.adam(0.02), 200 if quick else 2000

    def mean(meta, key, count=16):
        tasks, _ = jax.vmap(draw)(jax.random.split(key, count))
        return jnp.mean(jax.vmap(outer, (None, 0))(meta, tasks))

    @jax.jit
    def learn(meta, with_map):
        def step(carry, key):
            meta, state = carry
            grads = jax.grad(mean)(meta, key)
            grads["omega"] = jax.tree.map(lambda g: with_map * g, grads["omega"])
            updates, state = tx.update(grads, state)
            return (optax.apply_updates(meta, updates), state), None

        keys = jax.random.split(jax.random.key(0), rounds)
        return jax.lax.scan(step, (meta, tx.init(meta)), keys)[0][0]

    plain, meta = learn(start(), 0.0), learn(start(), 1.0)
    test, count = jax.random.key(1), 512
    (shown, _), spoilt = jax.vmap(draw)(jax.random.split(test, count))
    weights = np.asarray(jax.vmap(mask, (None, 0, 0))(meta["omega"], *shown))
    spoilt = np.asarray(spoilt)
    return {
        "loss, start alone": float(mean(plain, test, count)),
        "loss, with the map": float(mean(meta, test, count)),
        "weight where right": float(weights[~spoilt].mean()),
        "weight where spoilt": float(weights[spoilt].mean()),
    }
