"""How a gradient of T steps is cut into blocks of blocks, and what that costs.

Counted here, by hand, is what `scan` does: the carries that lie in memory at the worst
moment, and how often a step runs.
"""

import math
from functools import cache

POLICIES = ("none", "step", "sqrt", "replay", "offload")
DEPTH = 6  # levels of nesting; more compile for longer than they save


def width(policy: str, branching: int, steps: int) -> int:
    """Parts of a block: of all steps, so that nothing is cut, for "step"."""
    root = math.ceil(math.sqrt(steps))
    parts = {"sqrt": root, "replay": branching}.get(policy, steps)
    while 2 * parts**DEPTH <= steps:
        parts += 1
    return max(parts, 2)


def cut(steps: int, parts: int) -> tuple[int, int, int] | None:
    """(blocks, steps in each, odd steps after them), or None for what is too short.

    Up to twice the parts, where that leaves fewer odd steps.
    """
    if steps < 2 * parts:
        return None
    blocks = min(range(parts, 2 * parts), key=lambda n: steps % n)
    return blocks, *divmod(steps, blocks)


@cache
def evaluations(steps: int, parts: int) -> int:
    """Steps that run in a gradient: the way there, the blocks again, a step's own."""
    found = cut(steps, parts)
    if found is None:
        return 2 * steps
    blocks, size, odd = found
    return blocks * (size + evaluations(size, parts)) + 2 * odd


@cache
def stored(steps: int, parts: int, border: int, inner: int, x: int = 0) -> int:
    """The most that lies in memory at once, if a carry takes `border` at the start of a
    block and `inner` at that of a step, where only what is not linear is needed again.

    x: what one step reads, as a block gets its part of xs as a copy.
    """
    found = cut(steps, parts)
    if found is None:
        return steps * inner
    blocks, size, odd = found
    block = size * x + stored(size, parts, border, inner, x)
    return blocks * border + max(odd * inner, block)
