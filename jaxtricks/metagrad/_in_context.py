"""Learning in context: tasks as sequences, labels without a meaning of their own."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Key

from .._check import at_least, of_shape
from .._mask import at_label, at_least_f32, blank


def simplex_etf(
    classes: int, *, dimension: int | None = None, key: Key[Array, ""] | None = None
) -> Float[Array, "classes d"]:
    """Labels as vectors that are all alike: equally long, equally far from each other.

    E E' = (K I - 1 1') / (K - 1),   E = sqrt(K / (K - 1)) (I - 1 1' / K) R

    An equal-length, maximally equiangular set (ELMES): what CAML encodes labels with.

    Args:
      classes: K >= 2.
      dimension: d; K by default. At least K - 1.
      key: for a random R with orthonormal rows; without one it pads with zeros, or is
        a basis of the K - 1 dimensions that the simplex has.
    Returns:
      f32[K, d], rows of length 1 whose inner products are -1 / (K - 1).
    Gradient: none, it is constant.
    Cost: K d; one decomposition of [d, d] with a key, of [K, K] where d < K.
    Raises: ValueError for K < 2 or d < K - 1.
    Source: Fifty et al., "Context-Aware Meta-Learning", 2023, arXiv:2310.10971.
      Differs: none.
    Example:
      >>> print(simplex_etf(3) @ simplex_etf(3).T)
      [[ 1.  -0.5 -0.5]
       [-0.5  1.  -0.5]
       [-0.5 -0.5  1. ]]
    """
    at_least("classes", classes, 2)
    d = classes if dimension is None else dimension
    at_least("dimension", d, classes - 1)
    away = jnp.eye(classes) - 1 / classes
    if d < classes:  # in a basis of what is orthogonal to 1
        first = jnp.concatenate([jnp.ones((classes, 1)), away[:, 1:]], axis=1)
        away = jnp.linalg.qr(first)[0][:, 1:]
    ours = jnp.sqrt(classes / (classes - 1)) * away
    ours = jnp.pad(ours, ((0, 0), (0, d - ours.shape[1])))
    if key is None:
        return ours
    return ours @ jnp.linalg.qr(jax.random.normal(key, (d, d)))[0]


def caml_sequence(
    support: Float[ArrayLike, "*batch shots d"],
    labels: Int[ArrayLike, "*batch shots"],
    query: Float[ArrayLike, "*batch d"],
    encoding: Float[ArrayLike, "classes e"],
    unknown: Float[ArrayLike, " e"],
) -> Float[Array, "*batch tokens d+e"]:
    """A few-shot task as the set of tokens that a transformer classifies in context.

    [(query, unknown), (x_1, E[y_1]), ..., (x_n, E[y_n])]

    Feed it to an encoder without positions and read the first token: the answer does
    not depend on the order of the examples, and a label means what its examples do.

    Args:
      support: float[*batch, shots, d], features from a frozen encoder.
      labels: int[*batch, shots]; out of range gives NaN.
      query: float[*batch, d].
      encoding: float[classes, e], from `simplex_etf`.
      unknown: float[e], learned: the query's label.
    Returns:
      f32[*batch, 1 + shots, d + e], the query first.
    Gradient: linear in all floats.
    Cost: one copy.
    Raises: ValueError unless encoding and unknown agree.
    Source: Fifty et al., "Context-Aware Meta-Learning", 2023, arXiv:2310.10971.
      Differs: where the query stands, which attention does not see.
    Example:
      >>> x, y = jnp.ones((2, 3)), jnp.array([0, 1])
      >>> caml_sequence(x, y, x[0], simplex_etf(2), jnp.zeros(2)).shape
      (3, 5)
    """
    support, query = at_least_f32(support), at_least_f32(query)
    encoding, unknown = at_least_f32(encoding), at_least_f32(unknown)
    of_shape(encoding.shape[1:], unknown=unknown)
    labels = jnp.asarray(labels)[..., None]
    classes = jnp.arange(len(encoding)).reshape([1] * (labels.ndim - 1) + [-1])
    inside = (labels >= 0) & (labels < len(encoding))
    coded = (labels == classes).astype(encoding.dtype) @ encoding
    coded = jnp.where(inside, coded, jnp.nan)
    first = jnp.broadcast_to(unknown, (*query.shape[:-1], len(unknown)))
    asked = jnp.concatenate([query, first.astype(query.dtype)], axis=-1)
    known = jnp.concatenate([support, coded.astype(support.dtype)], axis=-1)
    return jnp.concatenate([asked[..., None, :], known], axis=-2)


def gpicl_tasks(
    inputs: Float[ArrayLike, "n d"],
    labels: Int[ArrayLike, " n"],
    index: Int[ArrayLike, " tasks"],
    rows: Int[ArrayLike, "tasks length"],
    *,
    key: Key[Array, ""],
    classes: int,
) -> tuple[Float[Array, "tasks length d"], Int[Array, "tasks length"]]:
    """As many tasks as one likes from one data set: projected, with labels permuted.

    x -> A x,   y -> pi(y),   A_ij ~ N(0, 1 / d),   both drawn from the task's number

    A few numbers used over and over are memorised; from many a sequence model learns to
    learn.

    Args:
      inputs: float[n, d], normalised.
      labels: int[n] in [0, classes).
      index: int[tasks], the tasks' numbers: the same number is the same A and pi.
      rows: int[tasks, length], which examples each task shows, in order.
      key: what A and pi are drawn from, with the number.
      classes: how many.
    Returns:
      (f32[tasks, length, d], int[tasks, length]).
    Gradient: linear in inputs.
    Cost: tasks d^2 for the projections.
    Raises: ValueError for numbers of examples or of tasks that disagree.
    Source: Kirsch et al., "General-Purpose In-Context Learning by Meta-Learning
      Transformers", 2022, arXiv:2212.04458. Differs: none.
    Example:
      >>> x, y, rows = jnp.eye(4), jnp.arange(4), jnp.zeros((2, 5), int)
      >>> key = jax.random.key(0)
      >>> x, y = gpicl_tasks(x, y, jnp.arange(2), rows, key=key, classes=4)
      >>> x.shape, y.shape
      ((2, 5, 4), (2, 5))
    """
    inputs, labels = at_least_f32(inputs), jnp.asarray(labels)
    index, rows = jnp.asarray(index), jnp.asarray(rows)
    n, d = inputs.shape
    of_shape((n,), labels=labels)
    of_shape((len(index), *rows.shape[1:]), rows=rows)

    def one(number, rows):
        by_task, by_label = jax.random.split(jax.random.fold_in(key, number))
        matrix = jax.random.normal(by_task, (d, d), inputs.dtype) / d**0.5
        order = jax.random.permutation(by_label, classes)
        return inputs[rows] @ matrix.T, order[labels[rows]]

    return jax.vmap(one)(index, rows)


def gpicl_loss(
    apply: Callable[[Float[Array, "tasks length d"]], Array],
    inputs: Float[ArrayLike, "*tasks length d"],
    labels: Int[ArrayLike, "*tasks length"],
    *,
    classes: int,
    where: Bool[ArrayLike, "*tasks length"] | None = None,
) -> Float[Array, "*tasks length"]:
    """Cross entropy of every label of a sequence from what came before it.

    tokens_j = [x_j, onehot(y_{j-1})], y_{-1} none;   loss_j = CE(apply(tokens)_j, y_j)

    What falls along the sequence is learnt: `loss[..., 0] - loss[..., -1]` tells it.

    Args:
      apply: f32[*tasks, length, d + classes] -> logits [*tasks, length, classes], each
        from its own and earlier tokens: a causal transformer, a recurrent network.
      inputs: float[*tasks, length, d].
      labels: int[*tasks, length]; out of range gives NaN.
      classes: how many.
      where: bool[*tasks, length], which count; every label is still shown.
    Returns:
      f32[*tasks, length], >= 0.
    Gradient: through apply, in its parameters.
    Cost: apply's.
    Source: Kirsch et al., "General-Purpose In-Context Learning by Meta-Learning
      Transformers", 2022, arXiv:2212.04458. Differs: the first token's previous
      label is zeros.
    Example:
      >>> x, y = jnp.ones((1, 2, 3)), jnp.array([[0, 1]])
      >>> gpicl_loss(lambda tokens: tokens[..., 3:], x, y, classes=2)
      Array([[0.6931, 1.3133]], dtype=float32)
    """
    inputs, labels = at_least_f32(inputs), jnp.asarray(labels)
    before = jax.nn.one_hot(labels[..., :-1], classes, dtype=inputs.dtype)
    none = jnp.zeros((*labels.shape[:-1], 1, classes), inputs.dtype)
    before = jnp.concatenate([none, before], axis=-2)
    logits = apply(jnp.concatenate([inputs, before], axis=-1))
    scores = jax.nn.log_softmax(blank(at_least_f32(logits), where))
    return blank(-at_label(scores, labels), where)
