"""`lax.scan` for long training runs that one differentiates through.

Reverse mode stores what every step computed. Here the steps are nested in blocks of
blocks under `jax.checkpoint`: only the carries at the borders of the blocks under way
are stored, and the backward pass runs a block again, from its border, on its way.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import PyTree

from .._check import at_least, one_of

POLICIES = ("none", "step", "sqrt", "replay")
DEPTH = 6  # levels of nesting; more compile for longer than they save


def scan(
    step: Callable[[Any, Any], tuple[Any, Any]],
    init: PyTree,
    xs: PyTree = None,
    *,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
    policy: str = "replay",
    branching: int = 4,
) -> tuple[PyTree, PyTree]:
    """`lax.scan` whose gradient stores O(log T) carries; to differentiate training.

    carry_0 = init;   carry_{t+1}, y_t = step(carry_t, x_t);   returns (carry_T, ys)

    Args:
      step: (carry, x) -> (carry, y). It runs more than once in a gradient, so that a
        random step must take its key from the carry or from x.
      init: carry_0, any pytree, sharded or not.
      xs: pytree of arrays [T, ...], or None.
      length: T, where xs does not say it.
      reverse: run from the last x to the first.
      unroll: how many steps an iteration of the innermost loop holds.
      policy: what a gradient stores: "none", all that T steps compute (`lax.scan`);
        "step", T carries; "sqrt", 2 sqrt(T) carries; "replay", k log_k(T) carries. The
        last three add what one step computes.
      branching: k >= 2, the parts that "replay" cuts a block into. It takes up to
        2k - 1 where that leaves fewer odd steps, and more where T is so long (above
        2 k^6) that more than 6 levels would be nested.
    Returns:
      (carry_T, ys), those of `lax.scan`.
    Gradient: exact in init, xs and all that step closes over, at any order and in both
      modes. Forward over reverse stores twice as much; reverse over reverse, a few
      times as much for "step" and "replay" and O(T) for "sqrt".
    Cost: nothing without a gradient. In one, a step runs once forward and once for each
      level: 2 T steps for "step", 3 T for "sqrt", (1 + log_k T) T for "replay".
    Raises: ValueError for an unknown policy or branching < 2. Lengths that disagree, or
      a step that changes the carry's type, raise what `lax.scan` raises.
    Source: Engstrom et al., "Optimizing ML Training with Metagradient Descent", 2025,
      arXiv:2503.13751, REPLAY. Differs: scans nested when compiling take the
      place of a tree of states walked lazily; any step, not only an optimizer's.
    Example:
      >>> def train(rate):  # 100 steps of gradient descent on w^2 / 2, from w = 1
      ...     return scan(lambda w, _: (w - rate * w, None), 1.0, length=100)[0]
      >>> print(jax.grad(train)(0.01))  # -100 * 0.99^99
      -36.9730
    """
    one_of("policy", policy, POLICIES)
    at_least("branching", branching, 2)
    plain = partial(lax.scan, length=length, reverse=reverse, unroll=unroll)
    if policy == "none":
        return plain(step, init, xs)
    jax.eval_shape(partial(plain, step), init, xs)  # lax.scan's own checks and messages
    steps = length if length is not None else jax.tree.leaves(xs)[0].shape[0]
    root = math.ceil(math.sqrt(steps))
    width = {"step": steps, "sqrt": root, "replay": branching}[policy]
    while 2 * width**DEPTH <= steps:
        width += 1
    return _nested(step, init, xs, steps, max(width, 2), reverse, unroll)


def _nested(step, init, xs, steps, width, reverse, unroll):
    """A scan over `width` blocks or a few more, each nested likewise; then odd steps.

    A block stores the carries between its parts, and only while it is differentiated.
    """
    from_inputs = partial(jax.checkpoint, prevent_cse=False)  # scan keeps passes apart
    if steps < 2 * width:
        return lax.scan(
            from_inputs(step), init, xs, length=steps, reverse=reverse, unroll=unroll
        )
    blocks = min(range(width, 2 * width), key=lambda n: steps % n)
    size, odd = divmod(steps, blocks)

    @from_inputs
    def block(carry, xs):
        return _nested(step, carry, xs, size, width, reverse, unroll)

    main, rest = slice(steps - odd), slice(steps - odd, None)
    if reverse:
        main, rest = slice(odd, None), slice(odd)
    folded = jax.tree.map(lambda x: x[main].reshape(blocks, size, *x.shape[1:]), xs)
    carry, ys = lax.scan(block, init, folded, length=blocks, reverse=reverse)
    ys = jax.tree.map(lambda y: y.reshape(blocks * size, *y.shape[2:]), ys)
    if odd == 0:
        return carry, ys
    xs = jax.tree.map(lambda x: x[rest], xs)
    carry, odd_ys = _nested(step, carry, xs, odd, steps, reverse, unroll)
    parts = (odd_ys, ys) if reverse else (ys, odd_ys)
    return carry, jax.tree.map(lambda *y: jnp.concatenate(y), *parts)
