"""The one place where versions of jax differ (0.10 to 0.12)."""

import jax
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

__all__ = ["NamedSharding", "P", "varying_like"]


def varying_like(x, like):
    """`x` varying over the manual mesh axes (shard_map, pmap) that `like` varies over.

    Its cotangent is then summed over those axes once, here, instead of at every use.
    """
    there = jax.typeof(like).manual_axis_type.varying
    axes = tuple(there - jax.typeof(x).manual_axis_type.varying)
    return lax.pcast(x, axes, to="varying") if axes else x
