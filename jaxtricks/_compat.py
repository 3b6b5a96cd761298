"""The one place where versions of jax differ (0.10 to 0.12)."""

from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

__all__ = ["NamedSharding", "P"]
