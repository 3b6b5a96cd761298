"""MAML with everything about its inner step learnt: start, preconditioner, loss, gates.

theta <- theta - rate P grad M(theta): P = W' W of linear layers that the inner steps do
not move, M = the loss plus what a small network makes of it, FiLM(x) = (1 + g) x + b.

Source: Raymond et al., "Meta-Learning Neural Procedural Biases", 2024,
arXiv:2406.07983. Differs: regression; the learned loss sees the support alone, not the
query, a relation network or the weights; the gates are not made from the task.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from jaxtricks import metagrad

WIDTH = 16


def film(x: Float[Array, "n d"], gate: Array, shift: Array) -> Array:
    """(gate + 1) x + shift; gate and shift of 0 change nothing."""
    return (gate + 1)[None] * x + shift[None]


def preconditioned(grads: Float[Array, "a b"], omega: Float[Array, "a a"]) -> Array:
    """omega' omega grad: descent through a linear layer that does not move."""
    return omega.T @ (omega @ grads)


def meta_loss(phi: PyTree, said: Array, y: Array) -> Array:
    """Mean of the base loss and of a network of (target, prediction, base loss)."""
    base = (said - y) ** 2
    seen = jnp.stack([y, said, base], axis=-1)
    learnt = jax.nn.softplus(jnp.tanh(seen @ phi["in"]) @ phi["out"])[..., 0]
    return jnp.mean(base + phi["on"] * learnt)


def predict(theta: PyTree, meta: PyTree, x: Array) -> Array:
    hidden = jnp.tanh(x[:, None] @ theta["first"] + theta["bias"][None])
    return film(hidden, meta["gate"], meta["shift"]) @ theta["last"]


def adapt(meta: PyTree, support: tuple[Array, Array], *, rate=0.05, steps=3) -> PyTree:
    """The learned inner steps; only the last layer is preconditioned."""
    x, y = support

    def loss(theta):
        return meta_loss(meta["loss"], predict(theta, meta, x), y)

    def step(theta, _):
        grads = jax.grad(loss)(theta)
        last = preconditioned(grads["last"][:, None], meta["omega"])[:, 0]
        grads = grads | {"last": last}
        return jax.tree.map(lambda w, g: w - rate * g, theta, grads), None

    return metagrad.scan(step, meta["theta"], length=steps, policy="none")[0]


def start(key: Array, loss_on: float = 1.0) -> PyTree:
    """Identity preconditioner, no gates; loss_on = 0 is plain MAML."""
    keys = jax.random.split(key, 4)
    return {
        "theta": {
            "first": jax.random.normal(keys[0], (1, WIDTH)),
            "bias": jax.random.normal(keys[1], (WIDTH,)),
            "last": jax.random.normal(keys[2], (WIDTH,)) / WIDTH**0.5,
        },
        "omega": jnp.eye(WIDTH),
        "gate": jnp.zeros(WIDTH),
        "shift": jnp.zeros(WIDTH),
        "loss": {
            "in": jax.random.normal(keys[3], (3, 8)) / 3,
            "out": jnp.zeros((8, 1)),
            "on": jnp.float32(loss_on),
        },
    }


def outer(meta: PyTree, tasks: PyTree) -> Array:
    """The query's plain loss after the inner steps."""

    def one(support, query):
        theta = adapt(meta, support)
        return jnp.mean((predict(theta, meta, query[0]) - query[1]) ** 2)

    return jnp.mean(jax.vmap(one)(*tasks))


def draw(key: Array, count: int) -> PyTree:
    """Sine waves: supports and queries of ten points."""

    def one(key):
        keys = jax.random.split(key, 3)
        height, phase = jax.random.uniform(keys[0], (2,), minval=0.5, maxval=2.0)
        x = jax.random.uniform(keys[1], (2, 10), minval=-3.0, maxval=3.0)
        y = height * jnp.sin(x - phase)
        return (x[0], y[0]), (x[1], y[1])

    return jax.vmap(one)(jax.random.split(key, count))


def run(quick: bool = False) -> dict[str, float]:
    """The query loss on 256 new tasks: plain MAML, and with everything learnt."""
    rounds, tx = 300 if quick else 4000, optax.adam(3e-3)

    def learn(meta, plain):
        def step(carry, key):
            meta, state = carry
            grads = jax.grad(outer)(meta, draw(key, 16))
            rest = {} if plain else {k: v for k, v in grads.items() if k != "theta"}
            grads = (
                jax.tree.map(jnp.zeros_like, grads) | rest | {"theta": grads["theta"]}
            )
            updates, state = tx.update(grads, state)
            return (optax.apply_updates(meta, updates), state), None

        keys = jax.random.split(jax.random.key(1), rounds)
        return jax.lax.scan(step, (meta, tx.init(meta)), keys)[0][0]

    found = {}
    for name, plain in {"MAML": True, "all learnt": False}.items():
        first = start(jax.random.key(0), 0.0 if plain else 1.0)
        learnt = jax.jit(lambda meta, plain=plain: learn(meta, plain))(first)
        found[name] = float(jax.jit(outer)(learnt, draw(jax.random.key(2), 256)))
    return found
