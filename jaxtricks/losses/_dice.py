"""Dice losses: differentiable F1, for data where one class drowns the others.

Per example (`dice`, `self_adjusting_dice`, `tversky`) every class gives one term; over
a set of positions (`dice_set`: tokens of a sentence, pixels) each class gives one.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Integer, ScalarLike

from .._check import at_least, one_of
from .._mask import at_least_f32, blank
from .._safe import divide, log1mexp
from ._targets import distribution


def dice(
    logits: Float[ArrayLike, "*batch classes"],
    targets: Integer[ArrayLike, "*batch"] | Float[ArrayLike, "*batch classes"],
    *,
    gamma: ScalarLike = 1.0,
    squared: bool = False,
    activation: str = "softmax",
    where: Bool[ArrayLike, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """One minus a soft F1, class by class; for heavily imbalanced classes.

    loss = sum_k 1 - (2 p_k y_k + gamma) / (p_k + y_k + gamma)

    Args:
      logits: float[*batch, classes], unnormalised; -inf rules a class out (p = 0).
      targets: int[*batch] in [0, classes), out of range gives NaN; or
        float[*batch, classes] in [0, 1]: soft or multi-hot.
      gamma: >= 0, smoothing; with 0 only classes with y > 0 have a gradient. May be
        traced.
      squared: squares p and y in the denominator.
      activation: "softmax" over classes, or "sigmoid" for each class alone
        (multi-label; binary is one class, `logits[..., None]`).
      where: bool[*batch], True counts.
    Returns:
      f32[*batch] in [0, classes), 0 at a perfect prediction; 0 where masked.
    Gradient: smooth in logits, soft targets and gamma > 0; nothing is stopped.
    Cost: one softmax and sums over the classes.
    Raises: ValueError for a shape that does not fit, a negative gamma or an unknown
      activation.
    Source: Li et al., "Dice Loss for Data-imbalanced NLP Tasks", 2019,
      arXiv:1911.02855, section 3. Differs: a sum over classes as in the official
      code; the paper writes the positive class alone (one class with "sigmoid").
    Example:
      >>> dice(jnp.zeros(2), 0)  # (1 - 2/2.5) + (1 - 1/1.5)
      Array(0.5333, dtype=float32)
      >>> dice(jnp.zeros((1, 1)), jnp.ones((1, 1)), activation="sigmoid")
      Array([0.2], dtype=float32)
    """
    log_p, _, y = _predict(logits, targets, activation, where)
    return blank(jnp.sum(_dice(jnp.exp(log_p), y, gamma, squared), axis=-1), where)


def self_adjusting_dice(
    logits: Float[ArrayLike, "*batch classes"],
    targets: Integer[ArrayLike, "*batch"] | Float[ArrayLike, "*batch classes"],
    *,
    alpha: ScalarLike = 1.0,
    gamma: ScalarLike = 1.0,
    squared: bool = False,
    activation: str = "softmax",
    where: Bool[ArrayLike, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """Dice that fades out examples the model is sure of, right or wrong.

    loss = sum_k 1 - (2 q_k y_k + gamma) / (q_k + y_k + gamma),  q = (1 - p)^alpha p

    Args:
      logits: float[*batch, classes], unnormalised; -inf rules a class out (p = 0).
      targets: int[*batch] in [0, classes), out of range gives NaN; or
        float[*batch, classes] in [0, 1]: soft or multi-hot.
      alpha: >= 0, how fast sure examples fade; 0 is `dice`. May be traced.
      gamma: >= 0, smoothing; with 0 only classes with y > 0 have a gradient. May be
        traced.
      squared: squares q and y in the denominator.
      activation: "softmax" over classes, or "sigmoid" for each class alone
        (multi-label; binary is one class, `logits[..., None]`).
      where: bool[*batch], True counts.
    Returns:
      f32[*batch] in [0, classes); with alpha = 1 the least of a class with y = 1 is at
      p = 1/2, not at 1; 0 where masked.
    Gradient: smooth in logits, soft targets, alpha and gamma > 0; nothing is stopped.
      It fades as p -> 1 in the logits, not in p.
    Cost: one softmax and sums over the classes.
    Raises: ValueError for a shape that does not fit, a negative alpha or gamma, or an
      unknown activation.
    Source: Li et al., "Dice Loss for Data-imbalanced NLP Tasks", 2019,
      arXiv:1911.02855, section 3. Differs: a sum over classes, as in `dice`; the
      official code's default is alpha 0 where the paper writes 1.
    Example:
      >>> self_adjusting_dice(jnp.zeros(2), 0)  # (1 - 1.5/2.25) + (1 - 1/1.25)
      Array(0.5333, dtype=float32)
    """
    at_least("alpha", alpha, 0)
    log_p, log_not, y = _predict(logits, targets, activation, where)
    q = jnp.exp(log_p + alpha * log_not)
    return blank(jnp.sum(_dice(q, y, gamma, squared), axis=-1), where)


def tversky(
    logits: Float[ArrayLike, "*batch classes"],
    targets: Integer[ArrayLike, "*batch"] | Float[ArrayLike, "*batch classes"],
    *,
    alpha: ScalarLike = 0.5,
    beta: ScalarLike = 0.5,
    gamma: ScalarLike = 1.0,
    activation: str = "softmax",
    where: Bool[ArrayLike, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """Dice with separate prices for false alarms and misses.

    loss = sum_k 1 - (p_k y_k + gamma)
                     / (p_k y_k + alpha p_k (1 - y_k) + beta (1 - p_k) y_k + gamma)

    Args:
      logits: float[*batch, classes], unnormalised; -inf rules a class out (p = 0).
      targets: int[*batch] in [0, classes), out of range gives NaN; or
        float[*batch, classes] in [0, 1]: soft or multi-hot.
      alpha: >= 0, price of a false positive. May be traced.
      beta: >= 0, price of a false negative; alpha = beta = 1/2 is `dice` with twice the
        gamma. May be traced.
      gamma: >= 0, smoothing. May be traced.
      activation: "softmax" over classes, or "sigmoid" for each class alone
        (multi-label; binary is one class, `logits[..., None]`).
      where: bool[*batch], True counts.
    Returns:
      f32[*batch] in [0, classes), 0 at a perfect prediction; 0 where masked.
    Gradient: smooth in logits, soft targets and hyperparameters at gamma > 0; nothing
      is stopped.
    Cost: one softmax and sums over the classes.
    Raises: ValueError for a shape that does not fit, a negative alpha, beta or gamma,
      or an unknown activation.
    Source: Li et al., "Dice Loss for Data-imbalanced NLP Tasks", 2019,
      arXiv:1911.02855, section 3. Differs: a sum over classes, as in `dice`.
    Example:
      >>> tversky(jnp.zeros(2), 0, alpha=0.3, beta=0.7)  # (1 - 1.5/1.85) + (1 - 1/1.15)
      Array(0.3196, dtype=float32)
    """
    at_least("alpha", alpha, 0)
    at_least("beta", beta, 0)
    at_least("gamma", gamma, 0)
    log_p, _, y = _predict(logits, targets, activation, where)
    p = jnp.exp(log_p)
    prices = alpha * p * (1 - y) + beta * (1 - p) * y
    terms = 1 - divide(p * y + gamma, p * y + prices + gamma)
    return blank(jnp.sum(terms, axis=-1), where)


def dice_set(
    logits: Float[ArrayLike, "*batch positions classes"],
    targets: Integer[ArrayLike, "*batch positions"]
    | Float[ArrayLike, "*batch positions classes"],
    *,
    alpha: ScalarLike = 0.0,
    gamma: ScalarLike = 1e-4,
    squared: bool = False,
    hard_negatives: ScalarLike | None = None,
    activation: str = "softmax",
    positions: Bool[ArrayLike, "*batch positions"] | None = None,
    where: Bool[ArrayLike, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """One minus a soft F1 over a whole set of positions: a sentence's tokens, pixels.

    loss = sum_k 1 - (2 sum_i q_ik y_ik + gamma) / (sum_i q_ik + sum_i y_ik + gamma)
    q = (1 - p)^alpha p

    Args:
      logits: float[*batch, positions, classes], unnormalised; -inf rules a class out.
      targets: int[*batch, positions] in [0, classes), out of range gives NaN; or
        float[*batch, positions, classes] in [0, 1]: soft or multi-hot.
      alpha: >= 0, how fast sure positions fade; 0 is the classical soft dice. May be
        traced.
      gamma: >= 0, smoothing; also keeps an empty class at loss 0. May be traced.
      squared: squares q and y in the denominator.
      hard_negatives: None, or >= 0: for each class keep, beside the positions with
        y > 1/2, at most this many times their number of others, those of largest q. A
        class without such positions keeps none. May be traced.
      activation: "softmax" over classes, or "sigmoid" for each class alone.
      positions: bool[*batch, positions], True counts; padding is False.
      where: bool[*batch], True counts.
    Returns:
      f32[*batch] in [0, classes]; 0 where masked.
    Gradient: smooth in logits, soft targets, alpha and gamma > 0; the choice of hard
      negatives is a step and passes none.
    Cost: one softmax, and two sorts over positions with hard_negatives.
    Raises: ValueError for a shape that does not fit, a negative alpha, gamma or
      hard_negatives, or an unknown activation.
    Source: Li et al., "Dice Loss for Data-imbalanced NLP Tasks", 2019,
      arXiv:1911.02855, section 3. Differs: both sums run over positions, where the
      official multi-class code divides one position's overlap by a whole batch's mass;
      hard negatives are exactly the stated number, where that code keeps a few less.
    Example:
      >>> dice_set(jnp.zeros((3, 2)), jnp.array([0, 0, 1]))  # (1 - 2/3.5) + (1 - 1/2.5)
      Array(1.0286, dtype=float32)
    """
    at_least("alpha", alpha, 0)
    if hard_negatives is not None:
        at_least("hard_negatives", hard_negatives, 0)
    logits, targets = blank(at_least_f32(logits), where), blank(targets, where)
    if positions is not None and jnp.shape(positions) != logits.shape[:-1]:
        raise ValueError(
            f"positions: wanted shape {logits.shape[:-1]}, came {jnp.shape(positions)}"
        )
    log_p, log_not, y = _predict(logits, targets, activation, positions)
    q = blank(jnp.exp(log_p + alpha * log_not), positions)
    y = blank(y, positions)
    if hard_negatives is not None:
        keep = _positives_and_hardest(q, y, hard_negatives, positions)
        q, y = jnp.where(keep, q, 0), jnp.where(keep, y, 0)
    return blank(jnp.sum(_dice(q, y, gamma, squared, over=-2), axis=-1), where)


def _predict(
    logits: Float[ArrayLike, "*batch classes"],
    targets: Integer[ArrayLike, "*batch"] | Float[ArrayLike, "*batch classes"],
    activation: str,
    where: Bool[ArrayLike, "*batch"] | None,
) -> tuple[Float[Array, "*batch classes"], ...]:
    """(log p, log(1 - p), y), each [*batch, classes]."""
    one_of("activation", activation, ("softmax", "sigmoid"))
    logits = blank(at_least_f32(logits), where)
    y = blank(distribution(targets, logits), where)
    if activation == "sigmoid":
        return jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits), y
    log_p = jax.nn.log_softmax(logits)
    return log_p, log1mexp(log_p), y


def _dice(
    q: Float[Array, "*batch classes"],
    y: Float[Array, "*batch classes"],
    gamma: ScalarLike,
    squared: bool,
    over: tuple[int, ...] | int = (),
) -> Float[Array, "..."]:
    """1 - (2 q y + gamma) / (q + y + gamma), its sums over the axes `over`."""
    at_least("gamma", gamma, 0)
    mass = jnp.square(q) + jnp.square(y) if squared else q + y
    overlap = 2 * jnp.sum(q * y, axis=over) + gamma
    return 1 - divide(overlap, jnp.sum(mass, axis=over) + gamma)


def _positives_and_hardest(
    q: Float[Array, "*batch positions classes"],
    y: Float[Array, "*batch positions classes"],
    ratio: ScalarLike,
    positions: Bool[ArrayLike, "*batch positions"] | None,
) -> Bool[Array, "*batch positions classes"]:
    """Positions with y > 1/2, and of the others the ratio * positives of largest q."""
    positive = ~(y <= 0.5)  # NaN, a label out of range, stays and shows
    budget = ratio * jnp.sum(positive, axis=-2, keepdims=True).astype(q.dtype)
    score = jnp.where(positive, -jnp.inf, lax.stop_gradient(q))
    score = blank(score, positions, fill=-jnp.inf)
    rank = jnp.argsort(jnp.argsort(-score, axis=-2), axis=-2)
    return positive | (rank.astype(q.dtype) + 1 <= budget)
