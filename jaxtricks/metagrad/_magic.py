"""MAGIC: what a trained model owes to each example, by differentiating its training.

Training is a function of example weights, all 1. The slope of a measurement in weight i
predicts what training without example i would give; a sum of slopes, without a set.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from .. import _safe as safe
from .. import _tree as tree
from .._check import at_least, of_shape
from .._mask import at_least_f32
from ._scan import scan


class Influence(NamedTuple):
    """What `magic` found; `predict` is the linear datamodel that it makes."""

    values: Array  # f32[targets], phi where training ends
    by_weight: PyTree  # [targets, ...] for every leaf of the weights, d phi / d weights
    weights: PyTree  # where this was taken

    def predict(self, weights: PyTree) -> Array:
        """f32[targets]: phi(w0) + tau . (w - w0), for training with other weights."""
        tree.check_alike("weights", weights, self.weights)
        moved = tree.add_scaled(weights, -1.0, self.weights)
        found = at_least_f32(self.values)
        for slope, by in zip(
            jax.tree.leaves(self.by_weight), jax.tree.leaves(moved), strict=True
        ):
            found = found + jnp.tensordot(slope, by, axes=jnp.ndim(by))
        return found


def magic(
    step: Callable[[Any, Any, Any], tuple[Any, Any]],
    init: PyTree,
    xs: PyTree,
    targets: Callable[[Any], Float[Array, " targets"]],
    weights: PyTree,
    *,
    length: int | None = None,
    batch: int | None = None,
    policy: str = "replay",
    branching: int = 4,
) -> Influence:
    """Exact influence of every training example, or token, on measurements of a model.

    tau = d phi(theta_T(w)) / dw,   theta_{t+1} = step(theta_t, x_t, w)
    phi without the examples S: phi - sum_{i in S} tau_i

    Args:
      step: (carry, x, weights) -> (carry, y), a deterministic one; a batch's loss is
        sum_i weights_i loss_i over a number that the weights do not change. A model
        without ReLU, max pooling and a large learning rate predicts best.
      init: carry_0, parameters and optimizer state.
      xs: pytree of arrays [T, ...], the indices of each batch, say; or None.
      targets: carry_T -> f[targets], the measurements phi.
      weights: f[examples], or f[examples, tokens], or any pytree of such; ones.
      length: T, where xs does not say it.
      batch: how many targets are pulled back at once; all by default.
      policy, branching: what is stored, as for `scan`.
    Returns:
      Influence(values f32[targets], by_weight [targets, *weights], weights). Its
      `predict(other weights)` is f32[targets]; `jax.vmap` of it takes many.
    Gradient: differentiable again.
    Cost: a gradient of `scan`. The replays of training are shared by the targets of a
      batch; the pulling back, and its memory, are not.
    Raises: ValueError unless targets gives a vector, and for batch < 1.
    Source: Ilyas and Engstrom, "MAGIC: Near-Optimal Data Attribution for Deep
      Learning", 2025, arXiv:2504.16430. Differs: many targets at once.
    Example:
      >>> def step(w, i, weights):  # one example at a time, w_i (w - i)^2 / 2
      ...     return w - 0.5 * weights[i] * (w - i), None
      >>> found = magic(step, 0.0, jnp.arange(3), lambda w: w[None], jnp.ones(3))
      >>> print(found.values, found.by_weight[0], found.predict(jnp.array([1, 0, 1.0])))
      [1.25] [0.    0.25  0.75] [1.]
    """
    if batch is not None:
        at_least("batch", batch, 1)

    def train(weights):
        def one(carry, x):
            return step(carry, x, weights)[0], None

        cost = {"length": length, "policy": policy, "branching": branching}
        return targets(scan(one, init, xs, **cost)[0])

    weights = jax.tree.map(jnp.asarray, weights)
    values, pull = jax.vjp(train, weights)
    if jnp.ndim(values) != 1:
        raise ValueError(f"targets: wanted f[targets], came shape {jnp.shape(values)}")
    rows = jnp.eye(len(values), dtype=values.dtype)
    # Only what depends on the row is done for each: not the replays.
    size = len(values) if batch is None else min(batch, max(1, len(values)))
    if size >= len(values):
        (by_weight,) = jax.vmap(pull)(rows)
    else:
        by_weight = lax.map(lambda row: pull(row)[0], rows, batch_size=size)
    return Influence(at_least_f32(values), by_weight, weights)


def linear_datamodeling_score(
    predicted: Float[ArrayLike, "*targets subsets"],
    actual: Float[ArrayLike, "*targets subsets"],
) -> Float[Array, "*targets"]:
    """How well predicted outcomes of training on subsets order the true ones (LDS).

    Spearman's correlation over the subsets: Pearson's of the ranks, ties averaged.

    Args:
      predicted: float[*targets, subsets], a target's value that an attribution tells
        for training on each subset.
      actual: float[*targets, subsets], what training on it gave.
    Returns:
      f32[*targets] in [-1, 1]; 1 for the same order, 0 if either is constant. Means
      over targets and seeds are the caller's.
    Gradient: zero.
    Cost: subsets^2 comparisons.
    Raises: ValueError unless both have one shape, of two subsets or more.
    Source: Ilyas and Engstrom, "MAGIC: Near-Optimal Data Attribution for Deep
      Learning", 2025, arXiv:2504.16430. Differs: none.
    Example:
      >>> true = jnp.array([1.0, 9.0, 3.0])
      >>> print(linear_datamodeling_score(jnp.array([1.0, 2.0, 4.0]), true))
      0.5
    """
    of_shape(jnp.shape(predicted), actual=actual)
    if jnp.ndim(predicted) < 1 or jnp.shape(predicted)[-1] < 2:
        came = jnp.shape(predicted)
        raise ValueError(f"predicted: wanted two subsets or more, came shape {came}")
    a, b = map(_centred_ranks, (predicted, actual))
    along = partial(jnp.sum, axis=-1)
    return safe.divide(along(a * b), safe.sqrt(along(a * a) * along(b * b)))


def _centred_ranks(x):
    """1 for the least, the mean rank where several are equal; less their mean."""
    x = lax.stop_gradient(at_least_f32(x))
    here, other = x[..., :, None], x[..., None, :]
    less, same = (jnp.sum(of, axis=-1) for of in (other < here, other == here))
    ranks = (less + (same + 1) / 2).astype(x.dtype)
    ranks = jnp.where(jnp.isnan(x), jnp.nan, ranks)
    return ranks - jnp.mean(ranks, axis=-1, keepdims=True)
