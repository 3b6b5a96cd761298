"""32 bits of an array's every element and place, wherever its parts lie.

They are the same on any devices and processes, because a sum has no order; a flipped
bit, or two swapped parts, changes them.
"""

import jax

from jaxtricks._checksum import checksum_leaf, is_key, raw

__all__ = ["checksum", "checksums", "is_key", "raw"]


checksum = jax.jit(checksum_leaf)


def checksums(leaves: dict[str, jax.Array]) -> dict[str, int]:
    """Of each array, by name.

    One program for all: with one for each, processes could meet in different ones, and
    on CPUs wait for each other for ever.
    """
    totals = jax.device_get(_all_checksums([raw(leaf) for leaf in leaves.values()]))
    return dict(zip(leaves, map(int, totals), strict=True))


@jax.jit
def _all_checksums(leaves: list[jax.Array]) -> list[jax.Array]:
    return [checksum_leaf(leaf) for leaf in leaves]
