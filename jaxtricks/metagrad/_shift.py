"""Why a model got worse: a change of its loss, shared out among shifts of the data."""

from math import factorial

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, ScalarLike

from .. import _safe as safe
from .._batch import whole
from .._check import above, of_shape
from .._mask import at_least_f32, blank

MOST = 20  # mechanisms: 2^20 coalitions


def importance_weighted_value(
    losses: Float[ArrayLike, " n"],
    log_ratios: Float[ArrayLike, "n mechanisms"],
    coalition: Float[ArrayLike, " mechanisms"] | Bool[ArrayLike, " mechanisms"],
    *,
    clip: ScalarLike | None = None,
    normalize: bool = False,
    where: Bool[ArrayLike, " n"] | None = None,
) -> Float[Array, ""]:
    """How the mean loss would change if these mechanisms of the data shifted alone.

    v(S) = mean(w_S l) - mean(l),   w_S = prod_{i in S} p_target(x_i | pa_i) / p_source

    Args:
      losses: float[n], of samples from the source.
      log_ratios: float[n, mechanisms], log of each conditional's target over source
        density at the sample; of a classifier c that tells target from source,
        logit c(x_i, pa_i) - logit c'(pa_i).
      coalition: [mechanisms], 1 or True for those in S.
      clip: the largest weight, > 0; None clips none.
      normalize: divide by the mean weight, for estimated ratios.
      where: bool[n], True counts.
    Returns:
      f32[]; 0 for the empty coalition.
    Gradient: smooth but for clip.
    Cost: a product of n x mechanisms.
    Raises: ValueError for shapes that do not fit, or clip <= 0.
    Source: Zhang et al., ""Why did the Model Fail?": Attributing Model Performance
      Changes to Distribution Shifts", 2022, arXiv:2210.10769. Differs: how ratios are
      estimated is the caller's.
    Example:
      >>> ratios = jnp.log(jnp.array([[0.5, 1.0], [1.5, 1.0]]))
      >>> first = jnp.array([True, False])
      >>> print(importance_weighted_value(jnp.array([1.0, 3.0]), ratios, first))
      0.5
    """
    losses, ratios = _clean(losses, log_ratios, where)
    if clip is not None:
        above("clip", clip, 0)
    chosen = jnp.asarray(coalition).astype(ratios.dtype)
    of_shape(ratios.shape[1:], coalition=chosen)
    return _value(losses, ratios, chosen, clip, normalize, _parts(losses, where))


def shift_shapley(
    losses: Float[ArrayLike, " n"],
    log_ratios: Float[ArrayLike, "n mechanisms"],
    *,
    clip: ScalarLike | None = None,
    normalize: bool = False,
    where: Bool[ArrayLike, " n"] | None = None,
) -> Float[Array, " mechanisms"]:
    """Each mechanism's part in a change of the mean loss between source and target.

    phi_i = sum_{S without i} |S|! (m - |S| - 1)! / m! (v(S + i) - v(S))

    Args:
      losses: float[n], of samples from the source.
      log_ratios: float[n, mechanisms], as for `importance_weighted_value`, whose v this
        shares out; at most 20 mechanisms.
      clip, normalize, where: as there.
    Returns:
      f32[mechanisms], summing to v of all: the loss on the target less that on the
      source, if the ratios are exact. 0 for a mechanism that did not shift.
    Gradient: smooth but for clip.
    Cost: 2^mechanisms values, 64 at a time.
    Raises: ValueError for more than 20 mechanisms, and as there.
    Source: Zhang et al., ""Why did the Model Fail?": Attributing Model Performance
      Changes to Distribution Shifts", 2022, arXiv:2210.10769. Differs: how ratios are
      estimated is the caller's.
    Example:
      >>> ratios = jnp.log(jnp.array([[0.5, 1.0], [1.5, 1.0]]))
      >>> print(shift_shapley(jnp.array([1.0, 3.0]), ratios))
      [0.5 0. ]
    """
    losses, ratios = _clean(losses, log_ratios, where)
    if clip is not None:
        above("clip", clip, 0)
    m = ratios.shape[1]
    if not 1 <= m <= MOST:
        raise ValueError(f"log_ratios: wanted 1 to {MOST} mechanisms, came {m}")
    coalitions = np.arange(2**m)[:, None] >> np.arange(m) & 1
    parts = _parts(losses, where)
    values = lax.map(
        lambda chosen: _value(losses, ratios, chosen, clip, normalize, parts),
        jnp.asarray(coalitions, ratios.dtype),
        batch_size=min(64, len(coalitions)),
    )
    # v(S) stands in phi_i once: gained by i if S holds it, given up if not.
    size = coalitions.sum(1)
    order = [factorial(k) * factorial(m - k - 1) / factorial(m) for k in range(m)]
    table = np.array([0.0, *order, 0.0])
    share = np.where(coalitions, table[size][:, None], -table[size + 1][:, None])
    return jnp.matmul(values, jnp.asarray(share, values.dtype), precision="highest")


def _clean(losses, log_ratios, where):
    losses, ratios = at_least_f32(losses), at_least_f32(log_ratios)
    if losses.ndim != 1:
        raise ValueError(f"losses: wanted f[n], came shape {losses.shape}")
    if ratios.ndim != 2 or ratios.shape[0] != losses.shape[0]:
        wanted = f"wanted shape ({losses.shape[0]}, mechanisms), came {ratios.shape}"
        raise ValueError(f"log_ratios: {wanted}")
    return whole(blank(losses, where)), whole(blank(ratios, where))


def _parts(losses, where):
    """What each sample counts in a mean."""
    live = jnp.ones(losses.shape, losses.dtype)
    if where is not None:
        live = whole(where).astype(losses.dtype)
    return safe.divide(live, jnp.sum(live))


def _value(losses, ratios, chosen, clip, normalize, parts):
    # Not a product with 0: a ratio may be -inf where a mechanism is not chosen.
    log_weights = jnp.sum(jnp.where(chosen[None] > 0, ratios, 0), axis=1)
    if clip is not None:
        log_weights = jnp.minimum(log_weights, jnp.log(clip))
    weights = jnp.exp(log_weights)
    if normalize:
        log_weights = jnp.where(parts > 0, log_weights, -jnp.inf)
        top = lax.stop_gradient(jnp.max(log_weights, initial=-jnp.inf))
        top = jnp.where(jnp.isfinite(top), top, 0)
        weights = jnp.exp(log_weights - top)
        weights = safe.divide(weights, jnp.sum(parts * weights))
    return jnp.sum(parts * (weights - 1) * losses)
