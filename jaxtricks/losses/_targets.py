"""Targets as one distribution over classes, however they were given."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from .._mask import one_hot


def distribution(
    targets: Shaped[ArrayLike, "..."], logits: Float[Array, "*batch classes"]
) -> Float[Array, "*batch classes"]:
    """Integer labels as one-hot rows, NaN where out of range; soft targets as they are.

    Targets that are neither of the batch shape nor of the logits' raise ValueError.
    """
    targets = jnp.asarray(targets)
    if targets.ndim < logits.ndim:
        hit = one_hot(targets, logits.shape)
        known = jnp.any(hit, axis=-1, keepdims=True)
        return jnp.where(known, hit.astype(logits.dtype), jnp.nan)
    if targets.shape != logits.shape:
        raise ValueError(
            f"targets: wanted labels of shape {logits.shape[:-1]} or probabilities of "
            f"shape {logits.shape}, came {targets.dtype}{list(targets.shape)}"
        )
    return targets.astype(logits.dtype)
