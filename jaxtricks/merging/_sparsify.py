"""What of a change survives: the largest, all but outliers, or what a coin decides.

A method of generalized task arithmetic is one of these followed by one of
`_consensus.py`: ties is `largest` and an election, dare `flip` and a sum, and so on.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from .._check import at_least, between, known
from ._namespace import along, at_least_f32, nonzero

Density = Any  # a number, or one for each of the models


def how_many(xp: Any, density: Density, size: int, n: int, least: int = 1) -> Any:
    """int32[n]: floor(density * size), `least` at least unless density is 0.

    Exact for Python numbers.
    """
    between("density", density, 0, 1)
    if isinstance(density, int | float):
        floor = min(size, least) if density > 0 else 0
        return xp.full(n, max(floor, int(density * size)), np.int32)
    if isinstance(density, list | tuple):
        if len(density) != n:
            raise ValueError(f"density: wanted one or {n}, came {len(density)}")
        each = [how_many(xp, d, size, 1, least) for d in density]
        return xp.concatenate([xp.asarray(k) for k in each])
    density = at_least_f32(xp, density)
    if density.shape not in ((), (n,)):
        raise ValueError(f"density: wanted shape () or {(n,)}, came {density.shape}")
    floor = xp.where(density > 0, min(size, least), 0)
    k = xp.clip(xp.floor(density * size), floor, size).astype(np.int32)
    return xp.broadcast_to(k, (n,))


def keep_largest(
    xp: Any, stacks: Sequence[Float[Any, "n ..."]], k: Int[Any, " n"]
) -> list[Bool[Any, "n ..."]]:
    """For each of n models True at its k entries of largest magnitude.

    Each model is spread over all stacks; among equal magnitudes the first ones win.
    """
    if xp is not np:
        from ._select import keep_largest as on_devices

        return on_devices(stacks, k)
    rows = [_keep([x[i] for x in stacks], int(m)) for i, m in enumerate(k)]
    ends = np.cumsum([x[0].size for x in stacks])[:-1]
    parts = [np.split(row, ends) for row in rows]
    return [
        np.stack(part).reshape(x.shape)
        for part, x in zip(zip(*parts, strict=True), stacks, strict=True)
    ]


def _keep(model: Sequence[Float[Any, "..."]], k: int) -> Bool[Any, " m"]:
    flat = np.concatenate([np.reshape(np.abs(x), -1) for x in model])
    if k <= 0 or k >= flat.size:
        return np.full(flat.size, k > 0)
    bits = flat.view(np.uint64 if flat.itemsize == 8 else np.uint32)
    floor = np.partition(bits, bits.size - k)[bits.size - k]
    keep = bits > floor
    tied = np.flatnonzero(bits == floor)
    keep[tied[: k - np.count_nonzero(keep)]] = True
    return keep


def largest(
    xp: Any, stacks: Sequence[Float[Any, "n ..."]], density: Density
) -> list[Bool[Any, "n ..."]]:
    """The density of largest entries of each model, over all stacks together."""
    if not stacks:
        return []
    n, size = stacks[0].shape[0], sum(x[0].size for x in stacks)
    if size >= 2**31:
        raise ValueError(f"scope: can trim less than 2^31 entries at once, came {size}")
    return keep_largest(xp, stacks, how_many(xp, density, size, n))


def inliers(
    xp: Any, stack: Float[Any, "n ..."], density: Density, gamma: Density
) -> Bool[Any, "n ..."]:
    """The density of largest entries of each model below its gamma of outliers.

    Where both do not fit, fewer outliers go.
    """
    n, size = stack.shape[0], stack[0].size
    between("gamma", gamma, 0, 1)
    kept = how_many(xp, density, size, n, least=0)
    outliers = xp.minimum(how_many(xp, gamma, size, n, least=0), size - kept)
    (high,) = keep_largest(xp, [stack], outliers)
    (both,) = keep_largest(xp, [stack], outliers + kept)
    return both & ~high


def chances(
    xp: Any, stack: Float[Any, "n ..."], density: Float[Any, " n"], epsilon: Any
) -> Float[Any, "n ..."]:
    """How likely each entry is kept: density -+ epsilon by its rank in its row.

    A row is axis 1 of a matrix or more, all of a vector; one entry alone has density.
    """
    axis = 2 if stack.ndim > 2 else 1
    rows = stack if stack.ndim > 1 else stack[:, None]
    if rows.size == 0:
        return xp.zeros_like(stack)
    rank = _ranks(xp, xp.abs(rows), axis).astype(stack.dtype)
    last = rows.shape[axis] - 1
    rank = rank / last if last else rank + 0.5
    p, e = along(density, rows), along(epsilon, rows)
    p = xp.where((p > 0) & (p < 1), p - e + rank * 2 * e, p)
    return xp.clip(p, 0, 1).reshape(stack.shape)


def _ranks(xp: Any, x: Float[Any, "..."], axis: int) -> Int[Any, "..."]:
    """The place of each entry in order along the axis; the first one wins."""
    if xp is not np:
        from ._select import ranks

        return ranks(x, axis)
    return np.argsort(np.argsort(x, axis=axis, stable=True), axis=axis)


def flip(xp: Any, chance: Float[Any, "n ..."], key: Any) -> Bool[Any, "n ..."]:
    """True with these probabilities; key: jax's, or a numpy.random.Generator."""
    if isinstance(key, np.random.Generator):
        return xp.asarray(key.random(chance.shape, np.float32)) < chance
    import jax

    return jax.random.uniform(key, chance.shape, chance.dtype) < chance


def keep(
    xp: Any,
    stack: Float[Any, "n ..."],
    mask: Bool[Any, "n ..."],
    rescale: Literal["1/p", "l1"] | None,
    chance: Float[Any, "n ..."] | None = None,
) -> Float[Any, "n ..."]:
    """The entries that the mask keeps, scaled up for those that it drops.

    "1/p" divides by the chance to be kept, "l1" restores each model's sum of
    magnitudes (not below 1e-7).
    """
    kept = xp.where(mask, stack, 0)
    if rescale == "1/p":
        return kept / nonzero(xp, chance)
    if rescale == "l1":
        axes = tuple(range(1, stack.ndim))
        before = xp.sum(xp.abs(stack), axis=axes, keepdims=True)
        after = xp.sum(xp.abs(kept), axis=axes, keepdims=True)
        tiny = (before < 1e-7) | (after < 1e-7)
        return kept * xp.where(tiny, 1, before / xp.where(tiny, 1, after))
    return kept


def check_epsilon(density: Density, epsilon: Density) -> None:
    """ValueError for Python numbers whose chances would leave (0, 1)."""
    several = [x for x in (density, epsilon) if isinstance(x, list | tuple)]
    n = min(map(len, several), default=1)  # of other lengths are refused later
    for d, e in zip(_spread(density, n), _spread(epsilon, n), strict=True):
        between("density", d, 0, 1)
        at_least("epsilon", e, 0)
        if known(d) and known(e) and 0 < d < 1 and not e < min(d, 1 - d):
            raise ValueError(
                f"epsilon: wanted density -+ epsilon in (0, 1), came {d} -+ {e}"
            )


def _spread(value: Density, n: int) -> list:
    return list(value[:n]) if isinstance(value, list | tuple) else [value] * n
