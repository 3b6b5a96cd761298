"""A transformer that learns from the sequence itself, if it has seen enough tasks.

Trained on few tasks (projections and label permutations of one data set) it memorises
them; from many, its error falls along the sequence on tasks it has never seen.

Source: Kirsch et al., "General-Purpose In-Context Learning by Meta-Learning
Transformers", 2022, arXiv:2212.04458. Differs: clusters of points for images, a small
model, no curriculum.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, PyTree

from jaxtricks import metagrad

from .in_context_tuning import layer

D, CLASSES, LENGTH, WIDTH = 8, 3, 20, 32


def start(key: Key[Array, ""], layers: int = 2) -> PyTree:
    keys = iter(jax.random.split(key, 3 + 5 * layers))

    def drawn(n, m):
        return jax.random.normal(next(keys), (n, m)) / n**0.5

    d = WIDTH
    shapes = [(d, d), (d, d), (d, d), (d, 2 * d), (2 * d, d)]
    return {
        "in": drawn(D + CLASSES, d),
        "place": drawn(LENGTH, d),
        "read": drawn(d, CLASSES),
        "layers": [[drawn(*shape) for shape in shapes] for _ in range(layers)],
    }


def model(
    params: PyTree, tokens: Float[Array, "tasks n d"]
) -> Float[Array, "tasks n k"]:
    """Logits of every label from what came before it."""
    x = tokens @ params["in"] + params["place"][None]
    for weights in params["layers"]:
        x = jax.vmap(partial(layer, weights))(x)
    return jax.nn.standardize(x) @ params["read"]


def data() -> tuple[Array, Array]:
    """Points around three centres."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) % CLASSES
    centres = 1.5 * rng.normal(size=(CLASSES, D))
    points = centres[labels] + 0.5 * rng.normal(size=(300, D))
    return jnp.asarray(points, jnp.float32), jnp.asarray(labels)


def run(quick: bool = False) -> dict[str, float]:
    """How much the loss falls along sequences of new tasks, by the tasks trained on."""
    points, labels = data()
    rounds, tx, batch = 1500 if quick else 5000, optax.adam(2e-3), 32

    def loss(params, key, tasks, first=0):
        by_task, by_row = jax.random.split(key)
        index = first + jax.random.randint(by_task, (batch,), 0, tasks)
        rows = jax.random.randint(by_row, (batch, LENGTH), 0, len(points))
        x, y = metagrad.gpicl_tasks(
            points, labels, index, rows, key=jax.random.key(9), classes=CLASSES
        )
        return metagrad.gpicl_loss(partial(model, params), x, y, classes=CLASSES)

    @jax.jit
    def learn(tasks):
        def step(carry, key):
            params, state = carry
            grads = jax.grad(lambda p: jnp.mean(loss(p, key, tasks)))(params)
            updates, state = tx.update(grads, state)
            return (optax.apply_updates(params, updates), state), None

        first = start(jax.random.key(0))
        keys = jax.random.split(jax.random.key(1), rounds)
        params = jax.lax.scan(step, (first, tx.init(first)), keys)[0][0]
        new = jnp.mean(loss(params, jax.random.key(2), 10**6, 10**6), axis=0)
        return jnp.mean(new[:2]) - jnp.mean(new[-5:])

    return {f"{n} tasks": float(learn(n)) for n in (1, 4096)}
