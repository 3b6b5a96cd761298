"""A local rule that learns a representation without labels, itself learnt.

Each unit sends what a small network, the same for all units, makes of its activation
and of the signal from above; a weight moves by the product of what its ends send. The
rule is judged by a ridge regression of few labels on what the units then say.

Source: Metz et al., "Meta-Learning Update Rules for Unsupervised Representation
Learning", 2018, arXiv:1804.00222. Differs: the paper's full rule (its hidden states,
its update of the backward weights) could not be read; here are its interface, its
locality and its objective, with one product a weight and fixed backward weights.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from jaxtricks import metagrad


class Layer(NamedTuple):
    """Forward weights, and fixed backward ones."""

    forward: Float[Array, "d out"]
    backward: Float[Array, "out d"]


def start(key: Key[Array, ""], sizes: list[int]) -> list[Layer]:
    keys = jax.random.split(key, len(sizes))
    both = [
        [jax.random.normal(k, (n, m)) / n**0.5 for k in jax.random.split(key)]
        for key, n, m in zip(keys[1:], sizes[:-1], sizes[1:], strict=True)
    ]
    return [Layer(a, b.T) for a, b in both]


def rule(key: Key[Array, ""], hidden: int = 8) -> PyTree:
    """Meta-parameters: (activation, signal) -> what a unit sends, and two rates."""
    first, second = jax.random.split(key)
    return {
        "in": jax.random.normal(first, (2, hidden)),
        "out": jax.random.normal(second, (hidden, 2)) / hidden**0.5,
        "rate": jnp.float32(-2.0),
        "decay": jnp.float32(-4.0),
    }


def activations(layers: list[Layer], x: Array) -> list[Array]:
    found = [x]
    for layer in layers:
        found.append(jnp.tanh(found[-1] @ layer.forward))
    return found


def update(meta: PyTree, layers: list[Layer], x: Array) -> list[Layer]:
    """One step of the rule on a batch; permuting units permutes it."""
    states = activations(layers, x)
    signal, sent = jnp.zeros_like(states[-1]), []
    for layer, state in zip([None, *layers[::-1]], states[::-1], strict=True):
        signal = signal if layer is None else signal @ layer.backward
        seen = jnp.stack([state, signal], axis=-1)
        sent.append(jnp.tanh(seen @ meta["in"]) @ meta["out"])
        signal = sent[-1][..., 0]
    sent = sent[::-1]
    moved = []
    for i, layer in enumerate(layers):
        product = jnp.einsum("bi,bo->io", sent[i][..., 1], sent[i + 1][..., 0]) / len(x)
        scale = jnp.sqrt(jnp.mean(product**2) + 1e-6)
        step = (
            jax.nn.sigmoid(meta["rate"]) * product / scale / len(layer.forward) ** 0.5
        )
        kept = (1 - jax.nn.sigmoid(meta["decay"])) * layer.forward
        moved.append(layer._replace(forward=kept + step))
    return moved


def few_shot(z: Array, y: Array, z_new: Array, y_new: Array, ridge=0.1) -> Array:
    """1 - cosine of the labels and a ridge regression's of them."""
    gram = z.T @ z + ridge * jnp.eye(z.shape[1])
    said = z_new @ jnp.linalg.solve(gram, z.T @ y)
    lengths = jnp.sum(said**2) * jnp.sum(y_new**2) + 1e-12
    return 1 - jnp.sum(said * y_new) / jnp.sqrt(lengths)


def objective(meta: PyTree, key: Key[Array, ""], sizes: list[int], steps: int) -> Array:
    """How badly a few labels of four classes are told after so many steps without."""
    keys = jax.random.split(key, 4)
    centres = 1.5 * jax.random.normal(keys[0], (4, sizes[0]))

    def data(key, count):
        which, noise = jax.random.split(key)
        labels = jax.random.randint(which, (count,), 0, 4)
        x = centres[labels] + jax.random.normal(noise, (count, sizes[0]))
        return x, jax.nn.one_hot(labels, 4) - 0.25

    def step(layers, key):
        return update(meta, layers, data(key, 16)[0]), None

    unseen = jax.random.split(keys[1], steps)
    layers, _ = metagrad.scan(step, start(keys[2], sizes), unseen, policy="none")
    x, y = data(keys[3], 32)
    z = activations(layers, x)[-1]
    return few_shot(z[:8], y[:8], z[8:], y[8:])


def run(quick: bool = False) -> dict[str, float]:
    """The objective before and after learning the rule, and on wider networks."""
    rounds, tx = 60 if quick else 600, optax.chain(optax.clip(0.1), optax.adam(0.01))
    first = rule(jax.random.key(0))

    def mean(meta, key, sizes, tasks=4):
        keys = jax.random.split(key, tasks)
        return jnp.mean(jax.vmap(lambda k: objective(meta, k, sizes, 5))(keys))

    @jax.jit
    def learn(meta):
        def step(carry, key):
            meta, state = carry
            updates, state = tx.update(jax.grad(mean)(meta, key, [6, 12, 4]), state)
            return (optax.apply_updates(meta, updates), state), None

        keys = jax.random.split(jax.random.key(1), rounds)
        return jax.lax.scan(step, (meta, tx.init(meta)), keys)[0][0]

    learnt, found = learn(first), {}
    for name, sizes in {"": [6, 12, 4], " wider": [6, 24, 4]}.items():
        f = jax.jit(lambda meta, sizes=sizes: mean(meta, jax.random.key(2), sizes, 64))
        found |= {f"before{name}": float(f(first)), f"learnt{name}": float(f(learnt))}
    return found
