"""A k-ary tree of checkpoints over the segments of a run, walked from its last leaf.

Nothing but a function says where the walk is: `kept(i)`, the segments whose starting
states are stored while segment i is differentiated. So a run that was killed goes on
from whatever it finds.
"""

from functools import cache


@cache
def kept(leaf: int, leaves: int, branching: int) -> frozenset[int]:
    """The first leaves of the children, up to the one on the way, of every node from
    the root down to a leaf: at most (k - 1) log_k(leaves) + 1.
    """
    low, high, found = 0, leaves, {0}
    while high - low > 1:
        size = -(-(high - low) // branching)
        child = (leaf - low) // size
        found.update(low + i * size for i in range(child + 1))
        low, high = low + child * size, min(low + (child + 1) * size, high)
    return frozenset(found)


def again(leaves: int, branching: int) -> list[tuple[int, int]]:
    """(segment, from where): where the walk finds the nearest stored state, for every
    segment from the last to the first; what lies between runs once more.
    """
    stored, found = set(kept(leaves - 1, leaves, branching)), []
    for leaf in reversed(range(leaves)):
        start = max(place for place in stored if place <= leaf)
        wanted = kept(leaf, leaves, branching)
        stored |= {place for place in wanted if place > start}
        found.append((leaf, start))
        stored &= kept(max(leaf - 1, 0), leaves, branching)
    return found
