"""Few-shot learning as predicting one more token: no gradient step inside.

A task's examples and a query are packed into one sequence; the model is trained on the
query's label alone, over tasks, choices and orders of examples.

Source: Chen et al., "Meta-learning via Language Model In-context Tuning", 2021,
arXiv:2110.07814. Differs: a small attention model from scratch in place of a pretrained
one; linear classification tasks; no instruction but a first token.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from jaxtricks import losses, reduce

INSTRUCTION, NO, YES = 0, 1, 2  # token numbers; the rest are bins of numbers
BINS, FIRST = 16, 3


def pack(
    examples: Int[Array, "k length"],
    labels: Int[Array, " k"],
    query: Int[Array, " length"],
) -> tuple[Int[Array, " tokens"], Bool[Array, " tokens"]]:
    """[instruction, x_1, y_1, ..., x_k, y_k, x], and where what comes next is asked."""
    shown = jnp.concatenate([examples, labels[:, None]], axis=1).reshape(-1)
    tokens = jnp.concatenate([jnp.array([INSTRUCTION]), shown, query])
    return tokens, jnp.arange(len(tokens)) == len(tokens) - 1


def tuning_loss(logits: Float[Array, "*b tokens v"], label, mask) -> Float[Array, ""]:
    """Cross entropy over the label tokens alone, where the mask says so."""
    among = logits[..., jnp.array([NO, YES])]
    labels = jnp.broadcast_to(label[..., None] - NO, mask.shape)
    return reduce.mean(losses.cross_entropy(among, labels, where=mask), where=mask)


def task(key: Key[Array, ""], shots: int, dimension: int = 2) -> tuple[Array, ...]:
    """Which side of a line through 0; numbers as tokens."""
    keys = jax.random.split(key, 2)
    w = jax.random.normal(keys[0], (dimension,))
    x = jax.random.uniform(keys[1], (shots + 1, dimension), minval=-1.0)
    tokens = FIRST + jnp.clip(((x + 1) / 2 * BINS).astype(jnp.int32), 0, BINS - 1)
    labels = jnp.where(x @ w > 0, YES, NO)
    packed, mask = pack(tokens[:-1], labels[:-1], tokens[-1])
    return packed, mask, labels[-1]


def start(key: Key[Array, ""], length: int, d: int = 32, layers: int = 2) -> PyTree:
    keys = iter(jax.random.split(key, 3 + 5 * layers))

    def drawn(*shape, scale=1.0):
        return scale * jax.random.normal(next(keys), shape) / shape[0] ** 0.5

    return {
        "embed": drawn(FIRST + BINS, d, scale=2.0),
        "place": drawn(length, d, scale=2.0),
        "read": drawn(d, FIRST + BINS),
        "layers": [
            [drawn(d, d), drawn(d, d), drawn(d, d), drawn(d, 2 * d), drawn(2 * d, d)]
            for _ in range(layers)
        ],
    }


def layer(weights: list[Array], x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Causal attention of one head, and a perceptron."""
    q, k, v, up, down = weights
    h = jax.nn.standardize(x)
    scores = (h @ q) @ (h @ k).T / q.shape[1] ** 0.5
    scores = jnp.where(jnp.tril(jnp.ones(scores.shape, bool)), scores, -jnp.inf)
    x = x + jax.nn.softmax(scores, axis=-1) @ (h @ v)
    return x + jax.nn.gelu(jax.nn.standardize(x) @ up) @ down


def model(params: PyTree, tokens: Int[Array, " n"]) -> Float[Array, "n v"]:
    """A small causal transformer."""
    x = params["embed"][tokens] + params["place"][: len(tokens)]
    for weights in params["layers"]:
        x = layer(weights, x)
    return jax.nn.standardize(x) @ params["read"]


def draw(key: Key[Array, ""], count: int, shots: int) -> tuple[Array, ...]:
    return jax.vmap(lambda key: task(key, shots))(jax.random.split(key, count))


def learn(params: PyTree, shots: int, rounds: int) -> PyTree:
    """By the labels of the queries of new tasks, 64 a round."""
    tx = optax.adam(1e-3)

    def loss(params, key):
        tokens, mask, label = draw(key, 64, shots)
        return tuning_loss(jax.vmap(model, (None, 0))(params, tokens), label, mask)

    def step(carry, key):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, key), state)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.key(1), rounds)
    return jax.lax.scan(step, (params, tx.init(params)), keys)[0][0]


def run(quick: bool = False) -> dict[str, float]:
    """Accuracy on 500 new tasks, untrained and tuned; and tuned, with the examples'
    labels turned round, which must turn the answer, too."""
    shots, rounds = 8, 150 if quick else 3000
    tokens, _, label = draw(jax.random.key(2), 500, shots)
    places = jnp.arange(3, 3 * shots + 1, 3)  # of the examples' labels
    turned = tokens.at[:, places].set(NO + YES - tokens[:, places])

    @jax.jit
    def accuracy(params, tokens, label):
        last = jax.vmap(model, (None, 0))(params, tokens)[:, -1]
        return jnp.mean((last[:, YES] > last[:, NO]) == (label == YES))

    first = start(jax.random.key(0), 1 + 3 * shots + 2)
    tuned = jax.jit(learn, static_argnums=(1, 2))(first, shots, rounds)
    return {
        "untrained": float(accuracy(first, tokens, label)),
        "tuned": float(accuracy(tuned, tokens, label)),
        "tuned, labels turned": float(accuracy(tuned, turned, NO + YES - label)),
    }
