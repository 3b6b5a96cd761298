"""The whole batch, wherever it lives: one device, a mesh, shard_map, pmap or vmap.

A batch-coupled trick (ranking, trimming, contrastive, quantiles) gathers with `whole`,
computes as if on one device, and returns its own part with `share`. State and sums are
built with `total` and `replicate`, so that they come out replicated.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Shaped

from ._compat import NamedSharding, P

AxisName = str | tuple[str, ...]


def whole(
    x: Shaped[ArrayLike, "..."], axis_name: AxisName | None = None
) -> Shaped[Array, "..."]:
    """All of the batch along axis 0, on every device.

    With `axis_name` (shard_map, pmap, vmap) the parts are gathered, a scalar part
    giving an axis; on an Explicit mesh the array is replicated; on an Auto mesh or one
    device it already is the whole.
    """
    x = jnp.asarray(x)
    if axis_name is not None:
        return lax.all_gather(x, axis_name, axis=0, tiled=x.ndim > 0)
    sharding = jax.typeof(x).sharding
    if any(axis is not None for axis in sharding.spec):
        return jax.reshard(x, NamedSharding(sharding.mesh, P()))
    return x


def replicate(
    x: Shaped[ArrayLike, "..."], axis_name: AxisName | None = None
) -> Shaped[Array, "..."]:
    """`whole` for what goes into a state: replicated also for shard_map's checker.

    A sum of the parts, each in its own place among zeros, costs the same as a gather.
    """
    x = jnp.asarray(x)
    if axis_name is None:
        return whole(x)
    part = x if x.ndim else x[None]
    n = part.shape[0]
    room = jnp.zeros((n * lax.psum(1, axis_name), *part.shape[1:]), x.dtype)
    start = lax.axis_index(axis_name) * n
    return lax.psum(lax.dynamic_update_slice_in_dim(room, part, start, 0), axis_name)


def share(
    y: Shaped[Array, "..."],
    like: Shaped[ArrayLike, "..."],
    axis_name: AxisName | None = None,
) -> Shaped[Array, "..."]:
    """The part of the whole `y` that belongs beside `like`, a part before `whole`."""
    like = jnp.asarray(like)
    if axis_name is not None:
        n = like.shape[0] if like.ndim else 1
        part = lax.dynamic_slice_in_dim(y, lax.axis_index(axis_name) * n, n)
        return part if like.ndim else part[0]
    sharding = jax.typeof(like).sharding
    if sharding.spec and sharding.spec[0] is not None:
        return jax.reshard(y, NamedSharding(sharding.mesh, P(sharding.spec[0])))
    return y


def total(
    x: Shaped[Array, "..."], axis_name: AxisName | None = None
) -> Shaped[Array, ""]:
    """The sum over the whole batch; replicated, also for shard_map's checker."""
    x = jnp.sum(x)
    return x if axis_name is None else lax.psum(x, axis_name)
