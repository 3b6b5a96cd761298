"""What STORM's rescaler is told of each example: how its loss stands among recent ones.

Statistics of loss and confidence over several dropout passes, and those of the recent
examples with the same label whose prediction agrees, or disagrees, with it too.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from .. import _safe as safe
from .._check import at_least
from .._mask import at_least_f32

EPS = 1e-8  # the spread of one example


class StormMemory(NamedTuple):
    """Recent examples of each label, the newest last."""

    stats: Float[Array, "labels recent 4"]  # loss and confidence: mean, std over passes
    agreed: Bool[Array, "labels recent"]
    held: Bool[Array, "labels recent"]


def storm_memory(*, labels: int, recent: int) -> StormMemory:
    """An empty memory for `storm_features`.

    Args:
      labels: how many; 1 holds all examples together.
      recent: how many examples of each are held: a window of batches times their size.
    Returns:
      StormMemory, with nothing held.
    Gradient: none.
    Cost: 18 bytes an example held.
    Raises: ValueError for labels < 1 or recent < 1.
    Source: Heck et al., "Learning from Noisy Labels via Self-Taught On-the-Fly Meta
      Loss Rescaling", 2024, arXiv:2412.12955. Differs: none.
    Example:
      >>> storm_memory(labels=2, recent=3).held.sum()
      Array(0, dtype=int32)
    """
    at_least("labels", labels, 1)
    at_least("recent", recent, 1)
    none = jnp.zeros((labels, recent), bool)
    return StormMemory(jnp.zeros((labels, recent, 4)), none, none)


def storm_features(
    losses: Float[ArrayLike, "passes n"],
    logits: Float[ArrayLike, "passes n classes"],
    labels: Int[ArrayLike, " n"],
    memory: StormMemory,
) -> tuple[Float[Array, "n 19"], StormMemory]:
    """What is told of each example to the rescaler of STORM. Batch-coupled.

    For s in (loss mean, loss std, confidence mean, confidence std) over the passes, and
    for the KL divergence and the overlap of N(loss mean, std) with its group's: the
    example's own, and the mean and std of s in its group. Then whether most passes
    agree with the label.

    A group is those held with the same label and the same agreement, this batch among
    them; its normal has its mean loss mean and mean loss std.

    Args:
      losses: float[passes, n], the first pass being the one that is trained on.
      logits: float[passes, n, classes] of the same passes, under dropout.
      labels: int[n]; out of range gives NaN, if the memory tells labels apart.
      memory: of earlier batches, from `storm_memory`.
    Returns:
      (f32[n, 19], memory with this batch).
    Gradient: stopped.
    Cost: n times the examples held of a label.
    Source: Heck et al., "Learning from Noisy Labels via Self-Taught On-the-Fly Meta
      Loss Rescaling", 2024, arXiv:2412.12955. Differs: as the authors' code,
      which takes the largest probability for the confidence.
    Example:
      >>> losses, logits = jnp.ones((2, 3)), jnp.zeros((2, 3, 4))
      >>> memory = storm_memory(labels=4, recent=3)
      >>> storm_features(losses, logits, jnp.arange(3), memory)[0][0, :3]
      Array([1., 1., 0.], dtype=float32)
    """
    losses, logits = at_least_f32(losses), at_least_f32(logits)
    labels = jnp.asarray(labels)
    losses, logits = lax.stop_gradient((losses, logits))
    hits = jnp.argmax(logits, axis=-1) == labels[None]
    twice, passes = 2 * jnp.sum(hits, axis=0), len(hits)
    agreed = jnp.where(twice == passes, hits[0], twice > passes)
    sure = jnp.max(jax.nn.softmax(logits), axis=-1)
    stats = jnp.stack([*_spread(losses), *_spread(sure)], axis=-1)
    return _told(memory, stats, agreed, labels)


@jax.jit  # one program, where outside of one it would be a hundred
def _told(memory, stats, agreed, labels):
    """The features of each example, and the memory with the batch."""
    memory = _remember(memory, stats, agreed, labels)

    def one(own, agreed, label):
        label = label if len(memory.held) > 1 else 0
        known = (label >= 0) & (label < len(memory.held))
        group = memory.stats[label]
        live = memory.held[label] & (memory.agreed[label] == agreed)
        means = [_moments(column, live) for column in group.T]
        centre, width = means[0][0], means[1][0]

        def beside(stats):
            mean, std = stats[0], stats[1]
            return (
                _divergence(mean, std, centre, width),
                _overlap(mean, std, centre, width),
            )

        others = jax.vmap(beside)(group)
        features = [(x, *m) for x, m in zip(own, means, strict=True)]
        pairs = zip(beside(own), others, strict=True)
        features += [(x, *_moments(column, live)) for x, column in pairs]
        told = jnp.stack([*sum(features, ()), agreed.astype(own.dtype)])
        return jnp.where(known, told, jnp.nan)

    return jax.vmap(one)(stats, agreed, labels), memory


def _spread(x: Float[Array, "passes n"]) -> tuple[Array, Array]:
    """Mean and unbiased std over the passes; 0 of one."""
    mean = jnp.mean(x, axis=0)
    if len(x) == 1:
        return mean, jnp.zeros_like(mean)
    return mean, safe.sqrt(jnp.sum(jnp.square(x - mean[None]), axis=0) / (len(x) - 1))


def _moments(x: Float[Array, " n"], live: Bool[Array, " n"]) -> tuple[Array, Array]:
    """Mean and unbiased std of the live entries; EPS of one."""
    count = jnp.sum(live).astype(x.dtype)
    mean = safe.divide(jnp.sum(jnp.where(live, x, 0)), count)
    square = jnp.sum(jnp.where(live, jnp.square(x - mean), 0))
    std = safe.sqrt(square / jnp.maximum(count - 1, 1))
    return mean, jnp.where(count > 1, std, EPS)


def _remember(memory, stats, agreed, labels) -> StormMemory:
    """With a batch appended, each label's oldest dropped."""
    count, recent = memory.held.shape
    new = (
        labels[None] == jnp.arange(count)[:, None] if count > 1 else agreed[None] | True
    )

    def one(old, agreed_then, held, new):
        held = jnp.concatenate([held, new])
        last = jnp.argsort(held, stable=True)[-recent:]
        both = jnp.concatenate([agreed_then, agreed])
        return StormMemory(jnp.concatenate([old, stats])[last], both[last], held[last])

    return jax.vmap(one)(memory.stats, memory.agreed, memory.held, new)


def _divergence(mean, std, centre, width) -> Array:
    """KL(N(mean, std) | N(centre, width)); 0 where a spread is 0."""
    flat = (std == 0) | (width == 0)
    std, width = jnp.where(flat, 1, std), jnp.where(flat, 1, width)
    ratio = (std**2 + (mean - centre) ** 2) / (2 * width**2)
    return jnp.where(flat, 0, jnp.log(width / std) + ratio - 0.5)


def _overlap(mean, std, centre, width) -> Array:
    """The area under both normals' densities."""
    std, width = jnp.maximum(std, EPS), jnp.maximum(width, EPS)
    low, high = jnp.minimum(std, width), jnp.maximum(std, width)
    away = jnp.abs(mean - centre)
    alike = 1 - lax.erf(away / (2 * low * 2**0.5))
    dv = (high - low) * (high + low)  # exactly 0 for equal ones, fused or not
    same = dv == 0
    dv = jnp.where(same, 1, dv)
    root = low * high * jnp.sqrt(away**2 + 2 * dv * jnp.log(high / low))
    # Densities cross at these, the narrow one being centred at 0, the other at `away`.
    area = 0.0
    for sign in (1.0, -1.0):
        at = (sign * root - away * low**2) / dv
        narrow = lax.erf(at / (low * 2**0.5))
        wide = lax.erf((at - away) / (high * 2**0.5))
        area = area + jnp.abs(narrow - wide) / 2
    return jnp.where(same, alike, 1 - area)
